"""Synthetic faces drawn by a seeded procedure, to try everything without real photographs.

A person is a random face shape with tones and features; each image adds random pose, expression, light, glasses,
occlusion, blur, noise, clothes and background, which carry no identity. Lengths are in half frames: the frame runs
from -1 to 1, x to the right and y downwards.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from ffem_jax.data import DataError, Faces
from ffem_jax.data.memory import check_memory
from ffem_jax.specs.trial import DataSpec

DEFAULT_PEOPLE = 20

# Variation between people: centre and half-width of the uniform distribution of a person's value.
PERSON = {
    "face_width": (0.53, 0.07),
    "face_height": (0.72, 0.06),
    "face_squareness": (0.22, 0.22),
    "jaw_taper": (0.28, 0.16),
    "ear_size": (0.11, 0.04),
    "skin_tone": (0.50, 0.50),
    "skin_warmth": (0.0, 0.08),
    "hair_tone": (0.50, 0.50),
    "hair_warmth": (0.05, 0.30),
    "hair_volume": (0.10, 0.07),
    "hair_length": (0.10, 0.55),
    "hairline": (-0.42, 0.13),
    "hairline_slant": (0.0, 0.28),
    "hairline_curve": (0.45, 0.55),
    "eye_distance": (0.225, 0.035),
    "eye_height": (-0.08, 0.045),
    "eye_width": (0.105, 0.022),
    "eye_roundness": (0.52, 0.16),
    "eye_slant": (0.0, 0.18),
    "iris_tone": (0.5, 0.5),
    "brow_gap": (0.135, 0.035),
    "brow_width": (0.13, 0.03),
    "brow_thickness": (0.026, 0.014),
    "brow_slant": (0.0, 0.22),
    "nose_length": (0.29, 0.06),
    "nose_width": (0.085, 0.032),
    "mouth_height": (0.405, 0.045),
    "mouth_width": (0.19, 0.055),
    "lip_thickness": (0.045, 0.020),
    "lip_redness": (0.5, 0.5),
    "beard": (-0.15, 0.65),
}

# Variation between images: standard deviation at difficulty 1 of a normal distribution around 0, clipped at two of
# them.
NUISANCE = {
    "rotation": 0.13,
    "log_scale": 0.08,
    "shift_x": 0.07,
    "shift_y": 0.07,
    "yaw": 0.45,
    "pitch": 0.35,
    "smile": 0.55,
    "mouth_open": 0.5,
    "brow_raise": 0.025,
    "eye_closing": 0.28,
    "light_x": 0.32,
    "light_y": 0.22,
    "log_gain": 0.28,
    "tint_red": 0.07,
    "tint_blue": 0.08,
}
GLASSES_RATE = 0.25
OCCLUSION_RATE = 0.15

# Dark to light, and fair to dark; a tone in 0 to 1 interpolates between neighbours. Red, green, blue in 0 to 1.
SKIN_TONES = np.array([[0.36, 0.24, 0.18], [0.62, 0.44, 0.33], [0.83, 0.64, 0.52], [0.95, 0.80, 0.71]])
HAIR_TONES = np.array([[0.07, 0.06, 0.06], [0.27, 0.17, 0.11], [0.52, 0.36, 0.20], [0.78, 0.68, 0.48]])
IRIS_TONES = np.array([[0.20, 0.12, 0.07], [0.34, 0.42, 0.24], [0.36, 0.52, 0.66]])


@lru_cache(maxsize=2)
def load(spec: DataSpec) -> Faces:
    """Draw `spec.people` people (0 means 20) with `spec.images_per_person` images each, at most `spec.max_images`.

    Equal specs give equal bytes, and image i of person p depends only on seed, difficulty, crop and resolution.
    Attributes `glasses` and `occlusion` are 0 or 1. Raises DataError for contradictory numbers.
    """
    people = spec.people or DEFAULT_PEOPLE
    each = min(spec.images_per_person, spec.max_images or spec.images_per_person)
    if each < spec.min_images:
        raise DataError(
            f"data=synthetic draws {each} images per person, fewer than data.min_images={spec.min_images}; "
            "raise data.images_per_person"
        )
    check_memory(people * each, spec.resolution)
    images = np.empty((people * each, spec.resolution, spec.resolution, 3), np.uint8)
    worn = {"glasses": np.zeros(len(images)), "occlusion": np.zeros(len(images))}
    for row in range(len(images)):
        person, index = divmod(row, each)
        images[row], worn["glasses"][row], worn["occlusion"][row] = draw_face(spec, person, index)
    return Faces(
        images=images,
        labels=np.repeat(np.arange(people, dtype=np.int32), each),
        people=tuple(f"person_{person:05d}" for person in range(people)),
        names=tuple(f"person_{person:05d}/{index:05d}" for person in range(people) for index in range(each)),
        content=tuple(hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in images),
        attributes=worn,
        synthetic=True,
    )


def draw_face(spec: DataSpec, person: int, index: int) -> tuple[np.ndarray, bool, bool]:
    """Draw image `index` of `person`: uint8 [resolution, resolution, 3], and whether it has glasses and an
    occlusion."""
    # A seed sequence treats [a, b] as [a, b, 0]: counting images from 1 keeps their streams apart from the person's.
    who = _draw_person(np.random.default_rng([spec.seed, person]), spec.difficulty)
    random = np.random.default_rng([spec.seed, person, index + 1])
    how = {name: spec.difficulty * sd * float(np.clip(random.normal(), -2, 2)) for name, sd in NUISANCE.items()}
    glasses = bool(random.random() < min(0.5, GLASSES_RATE * spec.difficulty))
    occlusion = bool(random.random() < min(0.5, OCCLUSION_RATE * spec.difficulty))
    canvas = _Canvas(spec, how)
    _paint_background(canvas, random)
    _paint_head(canvas, who, random)
    _paint_features(canvas, who, how)
    if glasses:
        _paint_glasses(canvas, who, random)
    if occlusion:
        _paint_occlusion(canvas, random)
    return _photograph(canvas, how, spec.difficulty, random), glasses, occlusion


def _draw_person(random: np.random.Generator, difficulty: float) -> dict[str, float]:
    likeness = 4 / (3 + difficulty)  # people become more similar with difficulty
    return {
        name: middle + min(likeness, 1.15) * half_width * random.uniform(-1, 1)
        for name, (middle, half_width) in PERSON.items()
    }


class _Canvas:
    """The image so far, float32 [row, column, 3] in 0 to 1, and the head's coordinates at every pixel.

    x, y: frame coordinates. u, v: those of the head's outline, upright and centred. s, t: those of its features, which
    yaw and pitch move across the outline as on a rotating sphere.
    """

    def __init__(self, spec: DataSpec, how: dict[str, float]) -> None:
        steps = ((np.arange(spec.resolution, dtype=np.float32) + 0.5) * 2 / spec.resolution - 1) * spec.crop
        self.x, self.y = np.meshgrid(steps, steps)
        cosine, sine = math.cos(how["rotation"]), math.sin(how["rotation"])
        scale = math.exp(how["log_scale"])
        x, y = (self.x - how["shift_x"]) / scale, (self.y - how["shift_y"]) / scale
        self.u, self.v = cosine * x + sine * y, cosine * y - sine * x
        self.s = self.u - 0.25 * math.sin(how["yaw"]) * np.clip(1 - self.u**2, 0, 1)
        self.t = self.v - 0.15 * math.sin(how["pitch"]) * np.clip(1 - self.v**2, 0, 1)
        self.pixel = 2 * spec.crop / spec.resolution / scale
        self.picture = np.zeros((spec.resolution, spec.resolution, 3), np.float32)

    def inside(self, distance: np.ndarray, softness: float = 0.0) -> np.ndarray:
        """Return the covered share of a pixel, 0 to 1, from a signed distance that is negative inside."""
        return np.clip(0.5 - distance / max(self.pixel, softness), 0, 1)

    def paint(self, cover: np.ndarray, colour: np.ndarray) -> None:
        """Blend `colour` over the image with opacity `cover` (0 to 1)."""
        self.picture += cover[..., None] * (np.asarray(colour, np.float32) - self.picture)


def _ellipse(x: np.ndarray, y: np.ndarray, radius_x: float, radius_y: float) -> np.ndarray:
    """Return the approximate signed distance to an ellipse around 0."""
    return (np.sqrt((x / radius_x) ** 2 + (y / radius_y) ** 2) - 1) * min(radius_x, radius_y)


def _tone(tones: np.ndarray, position: float, warmth: float = 0.0) -> np.ndarray:
    places = np.linspace(0, 1, len(tones))
    colour = np.array([np.interp(position, places, channel) for channel in tones.T])
    return np.clip(colour * [1 + warmth, 1.0, 1 - warmth], 0, 1)


def _paint_background(canvas: _Canvas, random: np.random.Generator) -> None:
    canvas.paint(np.ones_like(canvas.x), random.uniform(0.05, 0.95, 3))
    across = random.normal(size=2)
    canvas.paint(np.clip(0.5 + across[0] * canvas.x + across[1] * canvas.y, 0, 1), random.uniform(0.05, 0.95, 3))
    for _ in range(random.integers(0, 4)):
        centre, radii = random.uniform(-1, 1, 2), random.uniform(0.15, 0.7, 2)
        spot = _ellipse(canvas.x - centre[0], canvas.y - centre[1], *radii)
        canvas.paint(canvas.inside(spot, softness=0.1), random.uniform(0.05, 0.95, 3))


def _paint_head(canvas: _Canvas, who: dict[str, float], random: np.random.Generator) -> None:
    u, v = canvas.u, canvas.v
    skin = _tone(SKIN_TONES, who["skin_tone"], who["skin_warmth"])
    hair = _tone(HAIR_TONES, who["hair_tone"], who["hair_warmth"])
    width, height = who["face_width"], who["face_height"]
    volume = who["hair_volume"]
    # Hair behind the head: a cap, extended downwards by its length.
    below = np.maximum(v, 0) / max(0.25, 1 + who["hair_length"])
    canvas.paint(canvas.inside(_ellipse(u, np.minimum(v, 0) + below, width + volume, height + volume)), hair)
    clothes = random.uniform(0.05, 0.95, 3)
    canvas.paint(canvas.inside(_ellipse(u, v - 0.75, 0.6 * width, 0.5)), 0.82 * skin)
    canvas.paint(canvas.inside(_ellipse(u, v - 1.45, 1.1, 0.6)), clothes)
    for side in (-1, 1):
        canvas.paint(
            canvas.inside(_ellipse(u - side * width, v - 0.02, 0.7 * who["ear_size"], 1.2 * who["ear_size"])),
            0.88 * skin,
        )
    # A shape between ellipse and box that narrows towards the chin.
    across = np.abs(u) / (width * (1 - who["jaw_taper"] * np.clip(v / height, 0, 1) ** 2))
    along = np.abs(v) / height
    squareness = who["face_squareness"]
    rim = (1 - squareness) * np.sqrt(across**2 + along**2) + squareness * np.maximum(across, along)
    face = canvas.inside((rim - 1) * width)
    canvas.paint(face, skin)
    canvas.paint(face * np.clip((rim - 0.55) * 0.7, 0, 1), 0.6 * skin)  # the surface turns away from the viewer
    beard = max(0.0, who["beard"])
    chin = canvas.inside(0.30 - canvas.t - 0.25 * (canvas.s / width) ** 2, softness=0.12)
    canvas.paint(face * chin * beard, 0.5 * hair + 0.25 * skin)
    line = who["hairline"] + who["hairline_slant"] * canvas.s + who["hairline_curve"] * canvas.s**2
    crown = canvas.inside(_ellipse(u, v, width + 0.7 * volume, height + 0.7 * volume))
    canvas.paint(crown * canvas.inside(canvas.t - line, softness=0.05), hair)


def _paint_features(canvas: _Canvas, who: dict[str, float], how: dict[str, float]) -> None:
    s, t = canvas.s, canvas.t
    skin = _tone(SKIN_TONES, who["skin_tone"], who["skin_warmth"])
    hair = _tone(HAIR_TONES, who["hair_tone"], who["hair_warmth"])
    iris = _tone(IRIS_TONES, who["iris_tone"])
    open_by = float(np.clip(1 - abs(how["eye_closing"]), 0.12, 1))
    for side in (-1, 1):
        x, y = side * s - who["eye_distance"], t - who["eye_height"]
        y = y + who["eye_slant"] * x
        wide = who["eye_width"]
        high = wide * who["eye_roundness"] * open_by
        canvas.paint(canvas.inside(_ellipse(x, y, 1.35 * wide, 1.5 * high), softness=0.06), 0.72 * skin)
        eye = canvas.inside(_ellipse(x, y, wide, high))
        canvas.paint(eye, np.array([0.93, 0.93, 0.91]))
        round_iris = _ellipse(s - side * who["eye_distance"] - 0.1 * how["yaw"] * wide, y, 0.5 * wide, 0.5 * wide)
        canvas.paint(eye * canvas.inside(round_iris), iris)
        canvas.paint(eye * canvas.inside(round_iris + 0.27 * wide), np.array([0.03, 0.03, 0.03]))
        canvas.paint(canvas.inside(np.abs(_ellipse(x, y, wide, high)) - 0.008) * (y < 0), 0.3 * skin)
        brow = y + who["brow_gap"] + how["brow_raise"] + who["brow_slant"] * x
        canvas.paint(
            0.9 * canvas.inside(_ellipse(x - 0.01, brow, who["brow_width"], who["brow_thickness"])), 0.7 * hair
        )
    nose_end = who["eye_height"] + who["nose_length"]
    bridge = np.clip((t - who["eye_height"]) / who["nose_length"], 0, 1)
    edge = np.abs(np.abs(s) - who["nose_width"] * (0.35 + 0.65 * bridge)) - 0.010
    length = canvas.inside(np.abs(t - who["eye_height"] - 0.5 * who["nose_length"]) - 0.5 * who["nose_length"])
    canvas.paint(0.45 * length * canvas.inside(edge, softness=0.03), 0.6 * skin)
    canvas.paint(0.6 * canvas.inside(_ellipse(s, t - nose_end, 1.25 * who["nose_width"], 0.035)), 0.78 * skin)
    for side in (-1, 1):
        nostril = _ellipse(s - side * 0.55 * who["nose_width"], t - nose_end - 0.012, 0.28 * who["nose_width"], 0.014)
        canvas.paint(0.8 * canvas.inside(nostril), 0.3 * skin)
    wide = who["mouth_width"] * (1 + 0.25 * how["smile"])
    y = t - who["mouth_height"] + 0.09 * how["smile"] * ((s / wide) ** 2 - 0.5)
    gap = 0.05 * max(0.0, how["mouth_open"])
    lips = who["lip_thickness"] + gap
    redness = np.array([0.08, -0.16, -0.10]) * (0.4 + who["lip_redness"])
    canvas.paint(canvas.inside(_ellipse(s, y, wide, lips)), np.clip(0.85 * skin + redness, 0, 1))
    canvas.paint(canvas.inside(_ellipse(s, y, 0.92 * wide, 0.008 + 0.8 * gap)), np.array([0.20, 0.07, 0.07]))


def _paint_glasses(canvas: _Canvas, who: dict[str, float], random: np.random.Generator) -> None:
    s, t = canvas.s, canvas.t - who["eye_height"]
    frame = random.uniform(0.02, 0.5, 3)
    wide, high, thick = random.uniform(0.14, 0.19), random.uniform(0.10, 0.16), random.uniform(0.012, 0.028)
    dark = float(random.choice([0.08, 0.12, 0.75], p=[0.5, 0.35, 0.15]))  # sometimes sunglasses
    for side in (-1, 1):
        rim = _ellipse(s - side * who["eye_distance"], t, wide, high)
        canvas.paint(dark * canvas.inside(rim), 0.5 * frame)
        canvas.paint(canvas.inside(np.abs(rim) - thick), frame)
    bar = np.maximum(np.abs(t + 0.02) - thick, np.abs(s) - max(0.0, who["eye_distance"] - wide))
    temple = np.maximum(np.abs(t + 0.02) - thick, np.abs(np.abs(s) - 0.5) - 0.5 + who["eye_distance"] + wide)
    canvas.paint(canvas.inside(np.minimum(bar, temple)) * (np.abs(canvas.u) < who["face_width"]), frame)


def _paint_occlusion(canvas: _Canvas, random: np.random.Generator) -> None:
    """Paint an occlusion: a scarf from below, or a hand or another block from any side."""
    colour = random.uniform(0.05, 0.95, 3)
    if random.random() < 0.5:
        edge = random.uniform(0.15, 0.4) + 0.2 * random.normal() * canvas.u - canvas.v
        stripes = 0.5 + 0.5 * np.sign(np.sin(random.uniform(8, 25) * (canvas.v + random.normal() * canvas.u)))
        canvas.paint(canvas.inside(edge), colour)
        canvas.paint(canvas.inside(edge) * stripes * 0.5, random.uniform(0.05, 0.95, 3))
    else:
        angle, distance = random.uniform(0, 2 * math.pi), random.uniform(0.25, 0.6)
        x, y = canvas.u - distance * math.cos(angle), canvas.v - distance * math.sin(angle)
        canvas.paint(canvas.inside(_ellipse(x, y, *random.uniform(0.18, 0.36, 2))), colour)


def _photograph(canvas: _Canvas, how: dict[str, float], difficulty: float, random: np.random.Generator) -> np.ndarray:
    """Apply light, focus and sensor effects; return uint8."""
    gain = math.exp(how["log_gain"])
    light = gain * np.clip(1 + how["light_x"] * canvas.x * 1.5 + how["light_y"] * canvas.y * 1.5, 0.15, 2)
    tint = np.array([1 + how["tint_red"], 1.0, 1 + how["tint_blue"]], np.float32)
    lit = canvas.picture * light[..., None].astype(np.float32) * tint
    image = Image.fromarray(np.clip(np.rint(255 * lit), 0, 255).astype(np.uint8))
    blur = abs(random.normal()) * 0.010 * difficulty * len(canvas.x)  # pixels
    grain = (1 + 5 * difficulty * random.random()) * random.standard_normal(canvas.picture.shape, np.float32)
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), np.float32)
    return np.clip(np.rint(blurred + grain), 0, 255).astype(np.uint8)
