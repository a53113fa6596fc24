"""Data sets: made-up files from a local server, damage and absence; the real ones where present."""

import gzip
import hashlib
import http.server
import io
import os
import re
import struct
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy
import torch
from PIL import Image

from gradlab.data import download
from gradlab.data.datasets import DATA_SETS, SPLITS, load_images
from gradlab.data.digits import digit_rows, digits
from gradlab.data.image_files import (
    area_average,
    read_binary_rows,
    read_characters,
    read_drawings,
    read_idx,
    read_silhouettes,
)
from gradlab.data.sources import SOURCES, Source

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (30, 784), dtype=np.uint8)
BINARY = RNG.integers(0, 2, (30, 784), dtype=np.uint8)
CLASSES = (np.arange(30) % 10).astype(np.uint8)


@pytest.fixture(autouse=True)
def _own_folder(request, monkeypatch, tmp_path):
    """Keep off the user's data and cache, and the local server off any proxy."""
    if "full_data" not in request.keywords:
        monkeypatch.delenv("GRADLAB_DATA", raising=False)
    monkeypatch.setenv("GRADLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def idx(array):
    sizes = array.shape if array.ndim == 1 else (len(array), 28, 28)
    return struct.pack(f">HBB{len(sizes)}I", 0, 8, len(sizes), *sizes) + array.tobytes()


def matlab(**arrays):
    file = io.BytesIO()
    scipy.io.savemat(file, arrays)
    return file.getvalue()


def text(images, end="\n"):
    return "".join(" ".join(map(str, row)) + end for row in images).encode()


def columns_first(images):
    return images.reshape(-1, 28, 28).transpose(0, 2, 1).reshape(-1, 784)


def sha(content):
    return hashlib.sha256(content).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, a path to bytes; cuts the first `cuts` answers off after `cut_at` bytes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.ranges = {}, []
        self.cuts, self.cut_at, self.resumes = 0, 0, True
        self.address = f"http://127.0.0.1:{self.server_port}"


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        content, asked = self.server.files.get(self.path), self.headers["Range"]
        self.server.ranges.append(asked)
        if content is None:
            return self.send_error(404)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        if not self.server.resumes:
            asked, start = None, 0
        if asked and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = len(content)
        if self.server.cuts:
            self.server.cuts -= 1
            stop = start + self.server.cut_at
        self.wfile.write(content[start:stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def serve(server, monkeypatch):
    """Return a function that serves a made-up file as the data set of a name."""

    def serve(name, part, file, content, rows, mirrors=("",), digests=None):
        for mirror in mirrors:
            server.files.setdefault(f"{mirror}/{file}", content)
        source = Source(
            {file: digests or (sha(content),)},
            tuple(f"{server.address}{mirror}/{file}" for mirror in mirrors),
            rows,
        )
        monkeypatch.setitem(SOURCES, name, SOURCES[name] | {part: source})
        return source

    return serve


@pytest.fixture
def silhouettes(serve):
    """Serve thirty silhouettes; return what the file holds."""
    content = matlab(X=BINARY, Y=CLASSES[None] + 1)
    serve("silhouettes", "all", "shapes.mat", content, 30)
    return content


# What is in the package.


def test_digits_are_the_default_and_balanced():
    images = load_images()
    assert images.name == "digits"
    assert images.binary
    for split, n in zip(SPLITS, (200, 50, 50), strict=True):
        assert getattr(images, split).shape == (n, 784)
        assert images.labels[split].bincount().tolist() == [n // 10] * 10
    together = torch.cat([images.train, images.valid, images.test])
    assert torch.equal(together, digits()[0])


def test_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match=r"'fashon-mnist'; did you mean 'fashion-mnist'\?.*digits"):
        load_images("fashon-mnist")


def test_unknown_split():
    with pytest.raises(ValueError, match="split must be one of train, valid, test, not 'training'"):
        load_images().as_floats("training")


def test_every_data_set_has_files_and_a_sentence():
    assert set(DATA_SETS) - {"digits"} == set(SOURCES)
    sources = [source for parts in SOURCES.values() for source in parts.values()]
    digests = [d for source in sources for form in source.forms.values() for d in form]
    assert len(set(digests)) == len(digests)
    assert all(re.fullmatch("[0-9a-f]{32}|[0-9a-f]{64}", digest) for digest in digests)
    assert all(source.addresses for source in sources)


# Bytes, floats and draws.


@pytest.fixture
def grey(serve):
    for prefix in ("train", "t10k"):
        for kind, rows in (("images-idx3", GREY), ("labels-idx1", CLASSES)):
            name = f"{prefix}-{kind}"
            serve("mnist", name, f"{name}-ubyte.gz", gzip.compress(idx(rows)), 30)


def test_mnist_is_split_and_labelled(grey, tmp_path):
    images = load_images("mnist", tmp_path)
    assert torch.equal(images.train, torch.tensor(GREY[:27]))
    assert torch.equal(images.valid, torch.tensor(GREY[27:]))
    assert torch.equal(images.test, torch.tensor(GREY))
    assert images.labels["valid"].tolist() == [7, 8, 9]
    assert not images.binary


def test_grey_values_lie_in_the_unit_interval(grey, tmp_path):
    floats = load_images("mnist", tmp_path).as_floats("test")
    assert floats.dtype == torch.float32
    torch.testing.assert_close(floats, torch.tensor(GREY) / 255, rtol=0, atol=0)


def test_grey_images_are_drawn_with_their_grey_value(grey, tmp_path):
    images = load_images("mnist", tmp_path)
    batch = torch.tensor([0.0, 0.25, 1.0]).repeat_interleave(784).reshape(3, 784)
    many = batch.expand(500, 3, 784)
    drawn = images.binarized(many, torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {0, 1}
    share = drawn.mean((0, 2))
    assert share[0] == 0
    assert share[2] == 1
    assert abs(share[1] - 0.25) < 5 * (0.25 * 0.75 / (500 * 784)) ** 0.5
    again = images.binarized(many, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


def test_binary_images_are_not_drawn():
    images, generator = load_images(), torch.Generator().manual_seed(0)
    batch, state = images.as_floats("valid"), generator.get_state()
    assert torch.equal(images.binarized(batch, generator), batch)
    assert torch.equal(generator.get_state(), state)
    assert set(batch.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("batch", [torch.full((1, 784), 255.0), torch.full((1, 784), torch.nan)])
def test_a_batch_of_other_values_is_refused(batch):
    with pytest.raises(ValueError, match=r"grey values in \[0, 1\]"):
        load_images().binarized(batch, torch.Generator())


# What files hold.


@pytest.mark.parametrize("pack", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_idx(pack):
    np.testing.assert_array_equal(read_idx(pack(idx(GREY)), 30), GREY)
    np.testing.assert_array_equal(read_idx(pack(idx(CLASSES)), 30), CLASSES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(idx(GREY))[:-20], "gzip archive is broken"),
        (idx(GREY)[:-1], r"\(30, 28, 28\) with 23519 values"),
        (idx(GREY[:29]), r"\(29, 28, 28\) with 22736 values, expected \(30,\) or \(30, 28, 28\)"),
        (b"<html>not found</html>", "not an idx file"),
        (b"\0\0\x08\xff", "not an idx file"),
        (b"", "not an idx file"),
    ],
)
def test_damaged_idx(content, message):
    with pytest.raises(ValueError, match=message):
        read_idx(content, 30)


@pytest.mark.parametrize(
    "content",
    [
        text(BINARY),
        text(BINARY, " \r\n"),
        matlab(X=BINARY),
        matlab(X=BINARY.astype(float)),
    ],
    ids=["text", "text with other ends", "matlab bytes", "matlab doubles"],
)
def test_both_forms_of_amat(content):
    np.testing.assert_array_equal(read_binary_rows(content, 30), BINARY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (text(BINARY)[:-4], "23518 values, expected 30 lines of 784"),
        (text(BINARY).replace(b"1", b"2", 1), "values other than 0 and 1"),
        (matlab(X=BINARY[:29]), r"shape \(29, 784\), expected \(30, 784\)"),
        (matlab(X=BINARY / 2), "values other than 0 and 1"),
        (matlab(Z=BINARY), "no variable X"),
    ],
)
def test_damaged_amat(content, message):
    with pytest.raises(ValueError, match=message):
        read_binary_rows(content, 30)


def test_silhouettes_stand_upright_with_the_object_bright():
    # An L by hand: a stroke down the left side and one along the bottom to the right.
    letter = np.zeros((28, 28), np.uint8)
    letter[4:24, 6] = letter[23, 6:18] = 1
    in_file = 1 - letter.T.reshape(1, 784)
    images, classes = read_silhouettes(matlab(X=in_file, Y=np.uint8([[1]])), 1)
    np.testing.assert_array_equal(images.reshape(28, 28), letter)
    assert classes.tolist() == [0]


def test_characters_stand_upright():
    train, test = GREY[:20], GREY[20:]
    content = matlab(data=columns_first(train).T / 255, testdata=columns_first(test).T / 255)
    found = read_characters(content, 30)
    np.testing.assert_array_equal(found[0], train)
    np.testing.assert_array_equal(found[1], test)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": np.zeros((784, 2)), "testdata": np.ones((784, 2))}, r"2 \+ 2 images, expected 3"),
        ({"data": np.zeros((784, 2)), "testdata": np.full((784, 1), 255.0)}, "outside 0 to 1"),
        ({"data": np.zeros((784, 2)), "testdata": np.full((784, 1), np.nan)}, "outside 0 to 1"),
        ({"data": np.zeros((2, 784)), "testdata": np.ones((784, 1))}, "data of shape"),
    ],
)
def test_damaged_characters(arrays, message):
    with pytest.raises(ValueError, match=message):
        read_characters(matlab(**arrays), 3)


PAPER = RNG.random((2, 2, 105, 105)) < 0.9


def drawings_npz():
    file = io.BytesIO()
    np.savez(file, images=PAPER, labels=np.repeat([[0], [1]], 2, axis=1))
    return file.getvalue()


def drawings_zip():
    """The archive's own order is by alphabet, not by the number of the character."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for alphabet, character in (("Anglo", 1), ("Zulu", 0)):
            for drawer in range(2):
                png = io.BytesIO()
                Image.fromarray(PAPER[character, drawer]).save(png, "PNG")
                name = f"images/{alphabet}/character01/{character + 1:04}_{drawer + 1:02}.png"
                archive.writestr(name, png.getvalue())
    return file.getvalue()


@pytest.mark.parametrize("content", [drawings_npz(), drawings_zip()], ids=["npz", "zip"])
def test_drawings_are_inverted_and_reduced(content):
    found = read_drawings(content, 4)
    ink = ~PAPER.reshape(4, 105, 105)
    assert found.mean() / 255 == pytest.approx(ink.mean(), abs=1e-3)  # grey values are rounded
    np.testing.assert_array_equal(found, np.rint(255 * area_average(ink)).reshape(4, 784))


def test_damaged_drawings():
    with pytest.raises(ValueError, match=r"shape \(4, 105, 105\) and type bool, expected \(5, 105"):
        read_drawings(drawings_npz(), 5)


@pytest.mark.parametrize("side", [105, 35, 28, 10, 1])
def test_area_average_keeps_the_ink_of_each_image(side):
    ink = RNG.random((3, 105, 105)) < np.array([0.02, 0.1, 0.7])[:, None, None]
    found = area_average(ink, side)
    np.testing.assert_allclose(found.mean((1, 2)), ink.mean((1, 2)), rtol=1e-5)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6


def test_area_average_by_hand():
    ink = np.array([[[1, 1, 0], [1, 1, 0], [0, 0, 1]]], dtype=bool)
    # Of the area 2.25 of a new pixel, 1 is of its corner, 0.5 of each side, 0.25 of the centre.
    expected = np.array([[[2.25, 0.75], [0.75, 1.25]]]) / 2.25
    np.testing.assert_allclose(area_average(ink, 2), expected, rtol=1e-6)


# Splits of files that come without one.


def test_silhouettes_are_split_once_and_for_all(silhouettes, tmp_path):
    images = load_images("silhouettes", tmp_path)
    assert [len(getattr(images, split)) for split in SPLITS] == [24, 3, 3]
    upright = {row.tobytes(): i for i, row in enumerate(1 - columns_first(BINARY))}
    rows = {s: [upright[row.tobytes()] for row in getattr(images, s).numpy()] for s in SPLITS}
    assert sorted(row for chosen in rows.values() for row in chosen) == list(range(30))
    assert all(images.labels[s].tolist() == [i % 10 for i in rows[s]] for s in SPLITS)
    assert rows["valid"] + rows["test"] == [17, 24, 3, 1, 5, 28]


def test_omniglot_keeps_the_test_set_of_the_file(serve, tmp_path):
    content = matlab(
        data=columns_first(GREY[:20]).T / 255, testdata=columns_first(GREY[20:]).T / 255
    )
    serve("omniglot", "all", "chardata.mat", content, 30)
    images = load_images("omniglot", tmp_path)
    assert [len(getattr(images, split)) for split in SPLITS] == [18, 2, 10]
    np.testing.assert_array_equal(images.test, GREY[20:])
    both = torch.cat([images.train, images.valid]).numpy()
    assert sorted(row.tobytes() for row in both) == sorted(row.tobytes() for row in GREY[:20])


# From the network.


def test_download_keeps_the_whole_file_only(silhouettes, server, tmp_path):
    first = load_images("silhouettes", tmp_path)
    folder = tmp_path / "caltech101_silhouettes"
    assert (folder / "shapes.mat").read_bytes() == silhouettes
    assert not list(folder.glob("*.part"))
    again = load_images("silhouettes", tmp_path, download=False)
    assert torch.equal(first.train, again.train)
    assert len(server.ranges) == 1


@pytest.mark.parametrize("cuts", [1, 3])
def test_a_cut_connection_is_resumed(silhouettes, server, tmp_path, cuts):
    server.cuts, server.cut_at = cuts, 100
    load_images("silhouettes", tmp_path)
    assert server.ranges == [None, *(f"bytes={100 * (i + 1)}-" for i in range(cuts))]


def test_a_later_process_resumes(silhouettes, server, tmp_path):
    server.cuts, server.cut_at = 100, 10
    with pytest.raises(FileNotFoundError, match="the connection ended after 100 of"):
        load_images("silhouettes", tmp_path)
    server.cuts = 0
    load_images("silhouettes", tmp_path)
    assert server.ranges[-1] == "bytes=100-"


def test_a_server_that_cannot_resume_sends_all_again(silhouettes, server, tmp_path):
    server.cuts, server.cut_at, server.resumes = 1, 100, False
    load_images("silhouettes", tmp_path)
    assert len(server.ranges) == 2


@pytest.mark.parametrize("extra", [b"", b"too much"], ids=["whole", "too long"])
def test_a_part_that_was_not_renamed_is_used_or_replaced(silhouettes, server, tmp_path, extra):
    folder = tmp_path / "caltech101_silhouettes"
    folder.mkdir()
    (folder / "shapes.mat.part").write_bytes(silhouettes + extra)
    load_images("silhouettes", tmp_path)
    assert len(server.ranges) == (2 if extra else 1)


def test_a_part_of_another_file_is_replaced(silhouettes, server, tmp_path):
    folder = tmp_path / "caltech101_silhouettes"
    folder.mkdir()
    (folder / "shapes.mat.part").write_bytes(b"something else")
    load_images("silhouettes", tmp_path)
    assert server.ranges == ["bytes=14-", None]


def test_a_wrong_checksum_leaves_no_file(silhouettes, server, tmp_path):
    server.files["/shapes.mat"] = b"<html>please log in</html>"
    with pytest.raises(FileNotFoundError, match=f"checksum .*, expected {sha(silhouettes)}"):
        load_images("silhouettes", tmp_path)
    left = {path.name for path in (tmp_path / "caltech101_silhouettes").iterdir()}
    assert left <= {".lock"}
    assert len(server.ranges) == 1


def test_the_next_mirror_is_asked(serve, server, tmp_path):
    content = matlab(X=BINARY, Y=CLASSES[None] + 1)
    server.files["/bad/shapes.mat"] = b"damaged"
    serve("silhouettes", "all", "shapes.mat", content, 30, mirrors=("/bad", "/good"))
    load_images("silhouettes", tmp_path)
    assert len(server.ranges) == 2


def test_an_endless_answer_is_stopped(silhouettes, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LARGEST", 200)
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    with pytest.raises(FileNotFoundError, match="more than 200 bytes"):
        load_images("silhouettes", tmp_path)


def test_two_at_a_time_download_once(silhouettes, server, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: load_images("silhouettes", tmp_path), range(2))
    assert torch.equal(first.train, second.train)
    assert len(server.ranges) == 1


# Missing and damaged files.


def test_a_missing_file_says_which_where_from_and_where_to(silhouettes, server, tmp_path):
    server.files.clear()
    home = tmp_path / "caltech101_silhouettes"
    with pytest.raises(FileNotFoundError) as caught:
        load_images("silhouettes", tmp_path)
    for part in ("shapes.mat", f"{server.address}/shapes.mat", f"put it into {home}", "404"):
        assert part in str(caught.value)


def test_no_network(silhouettes, server, tmp_path, monkeypatch):
    address = "http://127.0.0.1:9/shapes.mat"
    source = SOURCES["silhouettes"]["all"]
    monkeypatch.setitem(
        SOURCES["silhouettes"], "all", Source(source.forms, (address,), source.rows)
    )
    with pytest.raises(FileNotFoundError, match=rf"{address}: .*refused.*fetch it from {address}"):
        load_images("silhouettes", tmp_path)


def test_downloading_can_be_forbidden(silhouettes, server, tmp_path):
    with pytest.raises(FileNotFoundError, match="downloading was not allowed"):
        load_images("silhouettes", tmp_path, download=False)
    assert server.ranges == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(silhouettes, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="file/caltech101_silhouettes cannot be written"):
        load_images("silhouettes", tmp_path / "file")


def test_a_damaged_file_is_named_and_stays(silhouettes, server, tmp_path):
    path = tmp_path / "shapes.mat"
    path.write_bytes(silhouettes[:-1])
    with pytest.raises(ValueError, match="damaged") as caught:
        load_images("silhouettes", tmp_path)
    for part in (str(path), sha(silhouettes[:-1]), sha(silhouettes), server.address, "move it"):
        assert part in str(caught.value)
    assert path.exists()
    assert server.ranges == []


def test_a_file_that_does_not_hold_what_it_should_is_named(serve, tmp_path):
    content = matlab(X=BINARY[:29], Y=CLASSES[None] + 1)
    serve("silhouettes", "all", "shapes.mat", content, 30)
    with pytest.raises(ValueError, match=r"shapes\.mat does not hold .*shape \(29, 784\)"):
        load_images("silhouettes", tmp_path)


@pytest.mark.parametrize("place", ["", "caltech101_silhouettes"])
@pytest.mark.parametrize("named_by", ["argument", "GRADLAB_DATA", "cache"])
def test_where_files_are_looked_for(silhouettes, tmp_path, monkeypatch, place, named_by):
    root = tmp_path / "cache" / "data" if named_by == "cache" else tmp_path / "folder"
    (root / place).mkdir(parents=True)
    (root / place / "shapes.mat").write_bytes(silhouettes)
    if named_by == "GRADLAB_DATA":
        monkeypatch.setenv("GRADLAB_DATA", str(root))
    folder = root if named_by == "argument" else None
    assert len(load_images("silhouettes", folder, download=False).train) == 24


def test_uncompressed_idx_is_read(grey, tmp_path, monkeypatch):
    name, plain = "train-images-idx3", idx(GREY[::-1].copy())
    packed = SOURCES["mnist"][name]
    forms = packed.forms | {f"{name}-ubyte": (sha(plain),)}
    monkeypatch.setitem(SOURCES["mnist"], name, Source(forms, packed.addresses, 30))
    (tmp_path / f"{name}-ubyte").write_bytes(plain)
    assert torch.equal(load_images("mnist", tmp_path).train, torch.tensor(GREY[:2:-1].copy()))


# The real files.

FULL = {
    # sizes, mean grey value of each split, classes
    "mnist": ((54_000, 6_000, 10_000), (0.1307, 0.1302, 0.1325), 10),
    "fashion-mnist": ((54_000, 6_000, 10_000), (0.2857, 0.2887, 0.2868), 10),
    "binarized-mnist": ((50_000, 10_000, 10_000), (0.1306, 0.1311, 0.1325), None),
    "omniglot": ((21_911, 2_434, 8_070), None, None),
    "omniglot-105": ((17_352, 1_928, 13_180), (0.0779, 0.0783, 0.0843), None),
    "silhouettes": ((6_937, 867, 867), (0.4563, 0.4579, 0.4523), 101),
}


@pytest.fixture(scope="module")
def full():
    """Return a function that loads a full set, or skips and says why; each is loaded once."""
    loaded = {}

    def load(name):
        if not os.environ.get("GRADLAB_DATA"):
            pytest.skip("GRADLAB_DATA names no folder with the full data sets")
        if name not in loaded:
            try:
                loaded[name] = load_images(name, download=False)
            except FileNotFoundError as error:
                pytest.skip(str(error))
        return loaded[name]

    return load


@pytest.mark.full_data
@pytest.mark.parametrize("name", FULL)
def test_full_sets_have_their_sizes_and_means(full, name):
    images, (sizes, means, classes) = full(name), FULL[name]
    assert tuple(len(getattr(images, split)) for split in SPLITS) == sizes
    if means is not None:
        found = [images.as_floats(split).double().mean().item() for split in SPLITS]
        assert found == pytest.approx(means, abs=6e-5)
    top = max(getattr(images, split).max() for split in SPLITS)
    assert top == (1 if images.binary else 255)
    if classes is None:
        assert images.labels is None
    else:
        assert all(len(images.labels[s]) == n for s, n in zip(SPLITS, sizes, strict=True))
        assert images.labels["train"].unique().tolist() == list(range(classes))


@pytest.mark.full_data
@pytest.mark.parametrize("split", SPLITS)
def test_binarized_mnist_is_larochelles_text(full, split):
    """Written as text again, the images have the MD5 of the public originals."""
    images = getattr(full("binarized-mnist"), split).numpy()
    lines = np.full((len(images), 2 * 784), ord(" "), np.uint8)
    lines[:, ::2] = images + ord("0")
    lines[:, -1] = ord("\n")
    (digests,) = SOURCES["binarized-mnist"][split].forms.values()
    assert hashlib.md5(lines.tobytes(), usedforsecurity=False).hexdigest() in digests


@pytest.mark.full_data
def test_mnist_test_images_hold_the_digits_of_the_package(full):
    images, (packaged, labels) = full("mnist"), digits()
    assert torch.equal((images.test[digit_rows()] > 127).to(torch.uint8), packaged)
    assert torch.equal(images.labels["test"][digit_rows()], labels)


@pytest.mark.full_data
def test_binarized_mnist_stands_as_mnist_does(full):
    grey, fixed = full("mnist").as_floats("train"), full("binarized-mnist").as_floats("train")
    means = torch.stack([grey.mean(0), fixed.mean(0)])
    assert torch.corrcoef(means)[0, 1] > 0.999
    turned = fixed.mean(0).reshape(28, 28).T.reshape(784)
    assert torch.corrcoef(torch.stack([grey.mean(0), turned]))[0, 1] < 0.9


@pytest.mark.full_data
@pytest.mark.parametrize(
    "kind", [16, 23, 63, 93], ids=["butterfly", "chandelier", "menorah", "umbrella"]
)
def test_full_silhouettes_are_upright(full, kind):
    """These are alike on the left and on the right, but not above and below."""
    images = full("silhouettes")
    shapes = images.train[images.labels["train"] == kind].reshape(-1, 28, 28)
    left_right, up_down = ((shapes == shapes.flip(axis)).double().mean() for axis in (2, 1))
    assert left_right > up_down + 0.1
