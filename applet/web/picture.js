/** Pictures from files and from the camera, as pixels. They are read into memory here and go nowhere else. */

/** What every browser's canvas holds; a larger picture is reduced by the browser when it is read. */
const MAX_PIXELS = 16_000_000;

/** Under a transparent picture, as in training. */
const BACKDROP = "rgb(128 128 128)";

/**
 * A file as {width, height, data}, upright, without colour management: the bytes that training decodes. Throws an
 * Error for what is no picture.
 */
export async function readFile(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  } catch {
    throw new Error(`this is no picture that this browser can read: ${file.name || "a file without a name"}.`);
  }
  const shrink = Math.min(1, Math.sqrt(MAX_PIXELS / (bitmap.width * bitmap.height)));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.floor(side * shrink)));
  const picture = draw(bitmap, width, height);
  bitmap.close();
  return picture;
}

/** The frame that `video` shows now, as {width, height, data}. */
export function takeFrame(video) {
  return draw(video, video.videoWidth, video.videoHeight);
}

function draw(source, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = BACKDROP;
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

/** Show the camera in `video`. Throws an Error that says why there is none. */
export async function openCamera(video) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("the camera needs a secure page: https, or localhost.");
  }
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: { facingMode: "user", width: { ideal: 1280 }, height: { ideal: 720 } },
    });
  } catch (error) {
    const reasons = {
      NotAllowedError: "the camera is not allowed for this page.",
      NotFoundError: "there is no camera.",
      NotReadableError: "the camera is in use elsewhere.",
    };
    throw new Error(reasons[error.name] ?? `the camera cannot be opened (${error.message}).`);
  }
  await video.play();
}

/** Let go of the camera. */
export function closeCamera(video) {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}
