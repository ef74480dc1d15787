"""Writes the files of this folder that other programs make: Pillow 13, numpy 2.4, pyarrow 26 and safetensors 0.8.

python3 -m pip install pillow numpy pyarrow safetensors
python3 tests/data/corpus/make.py

`read-*` must be read, `refused-*` must be refused. Files that this script does not write were found by `make fuzz`.
"""

import io
import pickle
import zipfile
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import safetensors.numpy
from PIL import Image

HERE = Path(__file__).resolve().parent

rows, columns = numpy.mgrid[0:8, 0:8]
rgb = numpy.stack([30 * rows, 25 * columns, 20 * (rows ^ columns)], axis=2).astype(numpy.uint8)
picture = Image.fromarray(rgb)
alpha = Image.fromarray(numpy.dstack([rgb, (32 * columns).astype(numpy.uint8)]))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


exif = Image.Exif()
exif[0x0112] = 6
files = {
    "progressive.jpg": encoded(picture, "JPEG", progressive=True, exif=exif),
    "gray.jpg": encoded(picture.convert("L"), "JPEG"),
    "cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG"),
    "palette.png": encoded(picture.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
    "bits.png": encoded(picture.convert("1"), "PNG"),
    "words.png": encoded(Image.fromarray((rgb[:, :, 0].astype(numpy.uint16) * 257)), "PNG"),
    "lossy.webp": encoded(alpha, "WEBP", quality=60),
    "animated.gif": encoded(picture, "GIF", save_all=True, append_images=[picture.rotate(90)]),
    "lzw.tif": encoded(picture, "TIFF", compression="tiff_lzw"),
    "plain.bmp": encoded(picture, "BMP"),
    "plain.pgm": encoded(picture.convert("L"), "PPM"),
}

out = io.BytesIO()
numpy.savez_compressed(out, x=numpy.arange(48, dtype=numpy.float32).reshape(4, 12), y=rgb)
files["compressed.npz"] = out.getvalue()
out = io.BytesIO()
with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("0/a.png", encoded(picture, "PNG"))
    archive.writestr("0/b.png", encoded(picture.rotate(90), "PNG"))
    archive.writestr("dataset.json", "{}")
files["pictures.zip"] = out.getvalue()
for protocol in (2, 3, 4, 5):
    files[f"protocol{protocol}.pkl"] = pickle.dumps(numpy.arange(12, dtype="<f4").reshape(3, 4), protocol)
files["dictionary.pkl"] = pickle.dumps({"x": rgb, "labels": [1, 2]}, 4)
files["half.safetensors"] = safetensors.numpy.save({"x": numpy.ones((2, 5), numpy.float16)}, {"format": "np"})
table = pyarrow.table({
    "image": [{"bytes": encoded(picture, "PNG"), "path": "a.png"}, {"bytes": encoded(picture, "PNG"), "path": None}],
    "label": pyarrow.array([0, 1], pyarrow.int64()),
})
for name in ("snappy", "none", "zstd"):
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out, compression=name)
    files[f"{name}.parquet"] = out.getvalue()
for order in ("C", "F"):
    out = io.BytesIO()
    numpy.save(out, numpy.asarray(numpy.arange(24, dtype=">f8").reshape(2, 3, 4), order=order))
    files[f"big-{order}.npy"] = out.getvalue()

# Python 3 writes arrays with a call of a codec in protocol 2, and of numpy's _frombuffer in protocol 5, and no call is made.
refused = {"protocol2.pkl", "protocol5.pkl"}
for name, content in files.items():
    prefix = "refused" if name in refused else "read"
    (HERE / f"{prefix}-{name}").write_bytes(content)
