"""Makes the golden files of tests/library/net_diffusers.rs with diffusers and transformers, in `diffusers/`.

    python tests/golden/make_diffusers_golden.py [--seed N] [--out FOLDER] [--vocabulary FILE] [--width N]

It needs torch, diffusers, transformers and safetensors. `--vocabulary` is CLIP's `bpe_simple_vocab_16e6.txt.gz`, which the
package open-clip-torch contains; without it, the files that depend on it are kept.

`tiny/` is a complete small model in the layout of diffusers, `unet_32/` and `text_gelu/` are single parts with other
settings. All weights are random. The weights of `unet_32` are stored in half precision, and computed with as they are
stored. Results are computed in f64 and stored as f32: `tiny.safetensors` and so on have inputs, outputs and
vector-Jacobian products, `tiny_prompt.safetensors` has singular values of the score's Jacobian by autograd and attention to
the end of a prompt. `prompts.json` has the tokens of prompts by transformers' CLIPTokenizer with CLIP's own
vocabulary, whose merges are `merges.txt.gz`; `padding.json` has those of folders that name a padding. `--width` is that of the second level of `unet_32`; 64 is true to a ratio of
Stable Diffusion's levels, and 32 keeps the committed file small. `MEM2GEN_GOLDEN_DIFFUSERS=FOLDER cargo test --release
--test library net_diffusers` tests the crate with other files.

`--full FOLDER` makes models of the size of Stable Diffusion 1.4 there instead (5 GB, some minutes), and their results in f32.
The same test compares them when `MEM2GEN_GOLDEN_FULL` names that folder.
"""

import argparse
import gzip
import json
import pathlib
import shutil
import tempfile

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = pathlib.Path(__file__).resolve().parent / "diffusers"
MERGES = 49152 - 256 - 2
TINY_MERGES = 200
TEXT = 16

SCHEDULE = dict(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
)
UNETS = {
    "tiny": dict(
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=TEXT,
        sample_size=8,
    ),
    "unet_32": dict(
        block_out_channels=(32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=32,
        attention_head_dim=[2, 4],
        cross_attention_dim=TEXT,
        sample_size=8,
        use_linear_projection=True,
        # Settings that other models change.
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-4,
        center_input_sample=True,
        mid_block_scale_factor=1.5,
    ),
}
VAE = dict(
    in_channels=3,
    out_channels=3,
    block_out_channels=(8, 16),
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
    layers_per_block=1,
    norm_num_groups=4,
    latent_channels=4,
    sample_size=16,
)
CLIP = dict(
    hidden_size=TEXT,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=77,
)

SUBJECTS = ["a cat", "two dogs", "An old lighthouse", "a castle of glass", "the Eiffel Tower", "a portrait of a woman"]
STYLES = [
    "in the style of Van Gogh",
    "as a watercolour, pastel colours",
    "4k, highly detailed, sharp focus",
    "on a rainy night; neon lights",
    "by the sea at dawn",
    "made of LEGO bricks (toy)",
    "-- low angle, 35mm, f/1.8",
]
SINGLE = [
    "",
    " ",
    "a",
    "A",
    "!",
    "hello world!!!",
    "don't can't won't it's I'm we're they've she'd he'll",
    "DON'T STOP",
    "rock'n'roll 'tis the '90s",
    "The quick brown fox jumps over the lazy dog.",
    "no.1 of 2,345.67 at $5 & 10%",
    "1234567890",
    "3x3=9; 2^10=1024",
    "e-mail: someone@example.org, see https://example.org/a?b=c#d",
    "tabs\tand\nnew lines\r\nand   many    spaces  ",
    "\u00a0non-breaking\u2003spaces\u200bof width zero",
    "caf\u00e9 cr\u00e8me br\u00fbl\u00e9e",
    "cafe\u0301 cre\u0300me",
    "\u00c5ngstr\u00f6m \u212b A\u030angstro\u0308m",
    "Stra\u00dfe STRASSE \u1e9e",
    "\u0130stanbul \u0131l\u0131k",
    "\u03a3\u0391\u03a3 \u03c3\u03b1\u03c2 \u039f\u0394\u039f\u03a3",
    "\u4e00\u53ea\u732b\u5750\u5728\u7a97\u53f0\u4e0a",
    "\u65e5\u672c\u306e\u6d6e\u4e16\u7d75\u3001\u5bcc\u58eb\u5c71",
    "\ud55c\uad6d\uc758 \uc0b0",
    "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u043f\u0435\u0439\u0437\u0430\u0436",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "\u05e2\u05d1\u05e8\u05d9\u05ea",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0928\u0926\u0940",
    "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22",
    "\U0001f600 smile \U0001f44d\U0001f3fd thumbs \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u2764\ufe0f hearts \u2665",
    "\u201cquotes\u201d \u2018single\u2019 \u2014 dash \u2026",
    "\u00bd \u00b2 \u2460 \u2167 \u0663",
    "fi\ufb01 \ufb02ag \uff21\uff22\uff23",
    "x" * 40,
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "_under_score_ #hashtag @mention ~tilde~ `code`",
    "<b>bold</b> &amp; &lt;tag&gt;",
    "<|notatoken|> <start> </w>",
    "(((emphasis))) [brackets] {braces}",
    "a/b\\c|d",
    "C++ and C# and F#",
    "\u0000control\u0007 characters\u007f",
    "a very long prompt " * 20,
    "red, green, blue, " * 15 + "end",
    "word " * 75,
    "word " * 76,
    "1 " * 80,
]


def prompts():
    made = [f"{subject} {style}" for subject in SUBJECTS for style in STYLES]
    more = [f"{style}: {subject.upper()} no. {i * 7}" for i, subject in enumerate(SUBJECTS) for style in STYLES]
    pairs = [
        f"a photo of {a} and {b}, {n} years old"
        for n, (a, b) in enumerate((a, b) for a in SUBJECTS for b in SUBJECTS if a != b)
    ]
    joined = [f"{a}{b}" for a in ["\u00e9t\u00e9", "na\u00efve", "\u4e2d", "\U0001f431"] for b in SUBJECTS + ["", "!?"]]
    every = SINGLE + made + more + pairs + joined + ["a b c", "Z", "0", "?"]
    assert len(every) == 200
    return every


def draw(model, seed, half=False):
    """Weights of f32 of a size that keeps values near one; scales of normalisation near one too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                noise = 1.0 + 0.2 * noise
            elif value.dim() == 1:
                noise = 0.2 * noise
            elif "embedding" in name and value.dim() == 2 and "linear" not in name:
                pass
            else:
                noise = noise / value[0].numel() ** 0.5
            value.copy_(noise.half() if half else noise)
    return model.eval()


def store(path, tensors):
    save_file({key: value.detach().float().contiguous() for key, value in tensors.items()}, str(path))
    print(path.name, path.stat().st_size)


def unet_case(model, seed, tensors):
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(shape, generator=generator).double()
    latents = normal(2, 4, 8, 12).float().double().requires_grad_()
    text, v = normal(2, 5, TEXT).float().double(), normal(2, 4, 8, 12).float().double()
    times = torch.tensor([1.0, 981.0]).double()
    output = model(latents, times, text).sample
    (product,) = torch.autograd.grad((output * v).sum(), latents)
    tensors |= {"latents": latents, "times": times, "text": text, "v": v, "output": output, "vjp": product}


def text_case(model, vocabulary, seed, tensors):
    ids = torch.randint(0, vocabulary, (3, 9), generator=torch.Generator().manual_seed(seed))
    tensors |= {"ids": ids.float(), "hidden": model(ids).last_hidden_state}


def vae_case(vae, seed, tensors):
    generator = torch.Generator().manual_seed(seed)
    images = (2.0 * torch.rand((2, 3, 16, 12), generator=generator) - 1.0).double()
    latents = torch.randn((2, 4, 6, 8), generator=generator).double()
    moments = vae.encode(images).latent_dist
    tensors |= {
        "images": images,
        "mean": moments.mean,
        "logvar": moments.logvar,
        "encoded": latents,
        "decoded": vae.decode(latents).sample,
    }


PROMPT = "a red house, don't stop"


def alpha_bars():
    """The scheduler keeps its table in f32; the products of f64 are the definition."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, 0)


class Watched:
    """An attention processor that keeps the probabilities of its layer, as diffusers computes them, averaged over heads."""

    def __init__(self):
        self.map = None

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        split = attn.head_to_batch_dim
        q, k, v = split(attn.to_q(hidden_states)), split(attn.to_k(text)), split(attn.to_v(text))
        p = attn.get_attention_scores(q, k, attention_mask)
        self.map = p.unflatten(0, (-1, attn.heads)).mean(1)
        return attn.to_out[0](attn.batch_to_head_dim(p @ v))


def prompt_case(model, tokenizer, given, seed, tensors):
    """The Jacobian of the score -epsilon / sigma at t = 15, with the prompt and with guidance 3, by rows of autograd; and the
    attention of each pixel to the first end token at t = 1, mean over the first level's layers on the way down."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn((1, 4, 4, 4), generator=generator).double()
    states = given["prompt_states"]
    t = 15
    alpha_bar = alpha_bars()[t]
    sigma = (1.0 - alpha_bar) ** 0.5

    def score(x, text):
        return -model(x, torch.tensor([float(t)]).double(), text).sample / sigma

    with torch.enable_grad():
        without, with_text = (
            torch.autograd.functional.jacobian(lambda x: score(x, states[i : i + 1]), alpha_bar**0.5 * clean)
            for i in range(2)
        )
    jacobians = [j.reshape(64, 64) for j in (with_text, without + 3.0 * (with_text - without))]
    tensors |= {
        "clean": clean,
        "singular_values": torch.stack([torch.linalg.svdvals(j) for j in jacobians]),
        "asymmetry": torch.stack([torch.linalg.norm(j - j.T) / torch.linalg.norm(j) for j in jacobians]),
    }

    plain = model(given["start"], torch.tensor([1.0]).double(), states[1:]).sample
    before = model.attn_processors
    watched = {name: Watched() for name in before}
    model.set_attn_processor(dict(watched))
    assert torch.allclose(model(given["start"], torch.tensor([1.0]).double(), states[1:]).sample, plain, atol=1e-12)
    model.set_attn_processor(before)
    maps = [w.map for name, w in watched.items() if name.startswith("down_blocks.0.") and "attn2" in name]
    end = tokenizer(PROMPT).input_ids.index(tokenizer.eos_token_id)
    tensors["end_attention"] = torch.stack(maps).mean(0)[..., end].reshape(8, 8)


def pipeline(model, text_model, vae, tokenizer, tensors):
    """Ten steps of DDIM with guidance, as StableDiffusionPipeline computes them, in f64."""
    generator = torch.Generator().manual_seed(7)
    guidance = 7.5
    encode = lambda text: torch.tensor(
        tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids
    )[None]
    ids = torch.cat([encode(""), encode(PROMPT)])
    states = text_model(ids).last_hidden_state
    scheduler = DDIMScheduler(**SCHEDULE)
    scheduler.set_timesteps(10)
    scheduler.alphas_cumprod = alpha_bars()
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    x = torch.randn((1, 4, 8, 8), generator=generator).double()
    start = x
    first = None
    for t in scheduler.timesteps:
        without, with_text = model(torch.cat([x, x]), t.double(), states).sample.chunk(2)
        epsilon = without + guidance * (with_text - without)
        first = epsilon if first is None else first
        x = scheduler.step(epsilon, t, x).prev_sample
    tensors |= {
        "prompt_ids": ids.float(),
        "prompt_states": states,
        "start": start,
        "first_epsilon": first,
        "end": x,
        "picture": vae.decode(x / vae.config.scaling_factor).sample,
        "timesteps": scheduler.timesteps.float(),
        "alphas_cumprod": DDIMScheduler(**SCHEDULE).alphas_cumprod,
    }


def full(out, seed):
    """The networks of Stable Diffusion 1.4 with random weights: 859 520 964 parameters in the U-Net's 686 tensors."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(shape, generator=generator)
    torch.manual_seed(seed)
    model = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=768,
        attention_head_dim=8,
    ).eval()
    model.save_pretrained(out / "unet", max_shard_size="100GB")
    tensors = {}
    for name, side in {"small": 8, "large": 64}.items():
        latents, text, v = normal(1, 4, side, side), normal(1, 77, 768), normal(1, 4, side, side)
        times = torch.tensor([501.0])
        with torch.set_grad_enabled(name == "small"):
            output = model(latents.requires_grad_(name == "small"), times, text).sample
        case = {"latents": latents, "times": times, "text": text, "v": v, "output": output}
        if name == "small":
            (case["vjp"],) = torch.autograd.grad((output * v).sum(), latents)
        tensors |= {f"{name}/{key}": value for key, value in case.items()}
    del model
    sizes = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    text_model = CLIPTextModel(CLIPTextConfig(vocab_size=49408, **sizes)).eval()
    text_model.save_pretrained(out / "text_encoder")
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    ).eval()
    vae.save_pretrained(out / "vae")
    ids, latents = torch.randint(0, 49408, (2, 77), generator=generator), normal(1, 4, 16, 16)
    with torch.no_grad():
        tensors |= {"ids": ids.float(), "hidden": text_model(ids).last_hidden_state}
        tensors |= {"encoded": latents, "decoded": vae.decode(latents).sample}
    store(out / "full.safetensors", tensors)


def vocabulary(merges):
    """The tokens in their order, as in CLIP's simple_tokenizer.py."""
    whole = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    characters = [chr(b) for b in whole] + [chr(256 + n) for n in range(256 - len(whole))]
    tokens = characters + [c + "</w>" for c in characters] + ["".join(m.split()) for m in merges]
    return {token: i for i, token in enumerate(tokens + ["<|startoftext|>", "<|endoftext|>"])}


def write_tokenizer(folder, merges):
    folder.mkdir(parents=True, exist_ok=True)
    text = "#version: 0.2\n" + "".join(m + "\n" for m in merges)
    (folder / "merges.txt").write_text(text, encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(vocabulary(merges), ensure_ascii=False), encoding="utf-8")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def padding(tiny):
    """Tokens of texts, with the padding that the files of a folder name. The third folder is that of Stable Diffusion 2."""
    end = "<|endoftext|>"
    old = {"add_prefix_space": False, "do_lower_case": True, "model_max_length": 77, "pad_token": end, "tokenizer_class": "CLIPTokenizer"}
    added = {str(i): {"content": name, "special": True} for i, name in [(0, "!"), (712, "<|startoftext|>"), (713, end)]}
    bang = {"pad_token": "!"}
    folders = [
        (None, None),
        (old, {"pad_token": end}),
        (old, bang),
        (old | bang | {"added_tokens_decoder": added}, bang),
        (old | bang | {"added_tokens_decoder": added}, {"pad_token": end}),
        (old | bang, {"pad_token": end}),
        (old | bang, None),
        (old | {"pad_token": {"__type": "AddedToken", "content": "!"}}, None),
        (None, bang),
    ]
    texts = ["", "a cat", "a cat!", "Red ! house", "!!", "wow!!!", "don't! stop", "a very long prompt, twice! " * 2, "! " * 14]
    cases = []
    for config, special in folders:
        with tempfile.TemporaryDirectory() as folder:
            files = {"tokenizer_config.json": config, "special_tokens_map.json": special}
            for name in ["merges.txt", "vocab.json"]:
                shutil.copy(tiny / "tokenizer" / name, folder)
            for name, text in files.items():
                if text is not None:
                    (pathlib.Path(folder) / name).write_text(json.dumps(text))
            tokenizer = CLIPTokenizer.from_pretrained(folder)
            rows = []
            for text in texts:
                ids = tokenizer(text, padding="max_length", max_length=12, truncation=True).input_ids
                rows.append([text, ids, max(len(tokenizer(text, truncation=False).input_ids) - 12, 0)])
            cases.append(files | {"texts": rows})
    return "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    parser.add_argument("--vocabulary", type=pathlib.Path)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--full", type=pathlib.Path)
    args = parser.parse_args()
    out, seed = args.out, 1000 * args.seed
    if args.full:
        args.full.mkdir(parents=True, exist_ok=True)
        return full(args.full, args.seed)
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    if args.vocabulary is None and not (out / "merges.txt.gz").exists():
        shutil.copy(HERE / "merges.txt.gz", out)
    if args.vocabulary:
        lines = gzip.open(args.vocabulary, "rt", encoding="utf-8").read().split("\n")[1 : MERGES + 1]
        packed = gzip.compress(("#version: 0.2\n" + "".join(m + "\n" for m in lines)).encode(), 9, mtime=0)
        (out / "merges.txt.gz").write_bytes(packed)
    merges = gzip.open(out / "merges.txt.gz", "rt", encoding="utf-8").read().split("\n")[1:-1]
    assert len(merges) == MERGES
    tokenizer = write_tokenizer(out / "whole", merges)
    rows = []
    for text in prompts():
        ids = tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids
        length = len(tokenizer(text, truncation=False).input_ids)
        # Without the ends that fill the row.
        rows.append([text, ids[: min(length, 77)], max(length - 77, 0)])
    table = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    (out / "prompts.json").write_text(table, encoding="utf-8")
    shutil.rmtree(out / "whole")

    tiny = out / "tiny"
    tokenizer = write_tokenizer(tiny / "tokenizer", merges[:TINY_MERGES])
    (out / "padding.json").write_text(padding(tiny), encoding="utf-8")
    count = 512 + TINY_MERGES + 2
    DDIMScheduler(**SCHEDULE).save_pretrained(tiny / "scheduler")

    tensors = {}
    model = draw(UNet2DConditionModel(**UNETS["tiny"]), seed)
    model.save_pretrained(tiny / "unet")
    model = model.double()
    unet_case(model, seed + 1, tensors)
    text_model = draw(CLIPTextModel(CLIPTextConfig(vocab_size=count, hidden_act="quick_gelu", **CLIP)), seed + 2)
    text_model.save_pretrained(tiny / "text_encoder")
    text_model = text_model.double()
    text_case(text_model, count, seed + 3, tensors)
    vae = draw(AutoencoderKL(**VAE), seed + 4)
    vae.save_pretrained(tiny / "vae")
    vae = vae.double()
    with torch.no_grad():
        vae_case(vae, seed + 5, tensors)
        pipeline(model, text_model, vae, tokenizer, tensors)
    store(out / "tiny.safetensors", tensors)
    case = {}
    with torch.no_grad():
        prompt_case(model, tokenizer, tensors, seed + 10, case)
    store(out / "tiny_prompt.safetensors", case)

    tensors = {}
    model = draw(UNet2DConditionModel(**UNETS["unet_32"] | {"block_out_channels": (32, args.width)}), seed + 6, half=True)
    model.half().save_pretrained(out / "unet_32", variant="fp16")
    unet_case(model.double(), seed + 7, tensors)
    store(out / "unet_32.safetensors", tensors)

    tensors = {}
    text_model = draw(CLIPTextModel(CLIPTextConfig(vocab_size=50, hidden_act="gelu", **CLIP)), seed + 8)
    text_model.save_pretrained(out / "text_gelu")
    text_case(text_model.double(), 50, seed + 9, tensors)
    store(out / "text_gelu.safetensors", tensors)


main()
