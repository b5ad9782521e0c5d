"""Pictures as cameras and phones write them, against pixels computed by hand."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from made_folders import make_picture
from PIL import Image

from ffem_jax.data import decode
from ffem_jax.data.decode import PictureError, decode_picture, hash_picture, select_people
from ffem_jax.data.preprocessing import crop_face
from ffem_jax.specs.data import FITS
from ffem_jax.specs.trial import DataSpec


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode_picture(data))


def test_colour_is_kept_exactly():
    image = make_picture(1)
    np.testing.assert_array_equal(pixels(encode(image)), np.asarray(image))


@pytest.mark.parametrize("kind", ["PNG", "PPM"])
def test_eight_bit_grey_becomes_three_equal_channels(kind):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(grey), kind)), np.repeat(grey[..., None], 3, 2))


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    png = encode(Image.fromarray(values))
    pgm = b"P5 4 1 65535\n" + values.astype(">u2").tobytes()
    for data in (png, pgm):
        assert pixels(data)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_palette_is_looked_up():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert pixels(encode(image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_transparency_lies_over_grey():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    assert pixels(encode(image)).tolist() == [[[128, 128, 128], [10, 20, 30]]]


def test_transparent_palette_lies_over_grey():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 10, 20, 30])
    image.putpixel((1, 0), 1)
    assert pixels(encode(image, transparency=0)).tolist() == [[[128, 128, 128], [10, 20, 30]]]


# EXIF tag 274: what must be done to the stored rows and columns to see the picture upright.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_honoured(orientation):
    image = make_picture(2)
    exif = Image.Exif()
    exif[274] = orientation
    np.testing.assert_array_equal(pixels(encode(image, exif=exif)), UPRIGHT[orientation](np.asarray(image)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_file_is_refused(kind):
    data = encode(make_picture(3, (200, 200)), kind)
    assert pixels(data).shape == (200, 200, 3)
    with pytest.raises(PictureError):
        decode_picture(data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8\xff\xe0", b"P5 9 9 255\n1"])
def test_what_is_no_picture_is_refused_in_one_line(data):
    with pytest.raises(PictureError) as error:
        decode_picture(data)
    assert str(error.value)
    assert "\n" not in str(error.value)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 1199)
    with pytest.raises(PictureError, match="40 x 30"):
        decode_picture(encode(make_picture(4)))
    bomb = b"P6 60000 60000 255\n"  # more than Pillow itself allows
    with pytest.raises(PictureError, match="pixels"):
        decode_picture(bomb)


def test_the_crop_is_the_middle_of_the_frame():
    image = Image.new("RGB", (250, 250), (0, 0, 0))
    image.paste((255, 255, 255), (55, 55, 195, 195))
    assert crop_face(image, 0.56, 140).min() == 255
    one_more = crop_face(image, 142 / 250, 142)
    assert one_more[0].max() == one_more[-1].max() == one_more[:, 0].max() == one_more[:, -1].max() == 0


def test_the_crop_of_a_wide_and_of_a_tall_picture_is_square():
    wide = make_picture(5, (50, 20))
    np.testing.assert_array_equal(crop_face(wide, 1.0, 20), np.asarray(wide)[:, 15:35])
    tall = make_picture(6, (20, 50))
    np.testing.assert_array_equal(crop_face(tall, 1.0, 20), np.asarray(tall)[15:35])


@pytest.mark.parametrize("crop", [1.0, 0.56])
@pytest.mark.parametrize("fit", FITS)
def test_every_fit_keeps_square_pictures_as_they_are(fit, crop):
    picture = make_picture(7, (45, 45))
    np.testing.assert_array_equal(crop_face(picture, crop, 16, fit), crop_face(picture, crop, 16))


@pytest.mark.parametrize("turned", [False, True])
def test_a_padded_picture_is_whole_between_grey_borders(turned):
    wide = make_picture(5, (50, 20))
    found = crop_face(wide.transpose(Image.Transpose.TRANSPOSE) if turned else wide, 1.0, 50, "pad")
    found = found.transpose(1, 0, 2) if turned else found
    np.testing.assert_array_equal(found[15:35], np.asarray(wide))
    assert np.unique(found[:15]).tolist() == np.unique(found[35:]).tolist() == [128]
    # The middle 60 % of the longer side; the shorter one is less than that and stays whole.
    middle = crop_face(wide, 0.6, 30, "pad")
    np.testing.assert_array_equal(middle[5:25], np.asarray(wide)[:, 10:40])


def test_a_stretched_picture_keeps_its_four_corners():
    wide = Image.new("RGB", (60, 20), (255, 0, 0))
    wide.paste((0, 0, 255), (30, 0, 60, 20))
    found = crop_face(wide, 1.0, 20, "stretch")
    assert (found[:, 0] == (255, 0, 0)).all()
    assert (found[:, -1] == (0, 0, 255)).all()
    np.testing.assert_array_equal(crop_face(make_picture(5, (50, 20)), 0.5, 10, "stretch").shape, (10, 10, 3))


def test_a_strip_is_padded_without_a_square_as_long_as_it():
    found = crop_face(Image.new("RGB", (1_000_000, 2), (0, 0, 0)), 1.0, 16, "pad")  # 3 TB as a square
    assert [row for row in range(16) if found[row].max() == 0] == [7]


def test_halving_is_antialiased():
    # Stripes one pixel wide: a filter that aliases keeps black or white, one that does not gives grey.
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    half = crop_face(Image.fromarray(stripes), 1.0, 32)[:, 2:-2]
    assert abs(half.astype(int) - 127).max() <= 2


def test_a_large_picture_of_one_colour_stays_that_colour():
    assert np.unique(crop_face(Image.new("RGB", (3000, 2000), (17, 17, 17)), 0.5, 96)).tolist() == [17]


def test_the_hash_sees_pixels_and_nothing_else():
    image = make_picture(7)
    same = {hash_picture(decode_picture(encode(image, kind, **options))) for kind, options in (
        ("PNG", {}), ("PNG", {"compress_level": 0}), ("PPM", {}), ("WEBP", {"lossless": True}),
    )}  # fmt: skip
    assert len(same) == 1
    assert hash_picture(make_picture(8)) not in same
    assert hash_picture(image.resize((30, 40))) != hash_picture(image)


@pytest.mark.parametrize(
    ("people", "min_images", "kept"),
    [
        (0, 1, ["dan", "bob", "cy", "ann"]),
        (0, 3, ["dan", "bob", "ann"]),
        (2, 1, ["dan", "bob"]),  # ann has as many as bob, and bob comes first
        (9, 4, ["dan"]),
        (1, 9, []),
    ],
)
def test_people_are_chosen_by_images_and_then_by_place(people, min_images, kept):
    images = {"dan": 5, "bob": 3, "cy": 1, "ann": 3}
    assert select_people(images, DataSpec(people=people, min_images=min_images)) == kept


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), MemoryError()])
def test_what_the_machine_lacks_is_no_fault_of_the_picture(monkeypatch, error):
    def fail(file):
        raise error

    monkeypatch.setattr(decode.Image, "open", fail)
    with pytest.raises(type(error)):
        decode_picture(encode(make_picture(4)))


def test_many_threads_decode_and_the_warnings_of_others_are_heard():
    """`warnings.catch_warnings` in each of them would leave all warnings of the process ignored."""
    data, before = encode(make_picture(5), "JPEG"), list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode_picture, [data] * 500))
    added = [one for one in warnings.filters if one not in before]
    assert [one[3].pattern for one in added] in ([], [r"PIL\."])
    with pytest.warns(UserWarning, match="of somebody's"):
        warnings.warn("of somebody's own", stacklevel=1)


def test_of_what_pillow_warns_nothing_is_said(monkeypatch):
    monkeypatch.setattr(decode.Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings(action="error"):
        decode_picture(encode(make_picture(6).resize((12, 12))))
