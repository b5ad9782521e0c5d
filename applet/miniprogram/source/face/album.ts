/** A picture that the person chooses, cut square by WeChat's own cropping page, as pixels. */
import { Failure, readMessage } from '../failure';
import { Picture } from '../shared/preprocessing';

/** What a canvas holds on every phone; WeChat's compressed pictures are smaller. */
const MAXIMUM_SIDE = 4096;

/** Under a transparent picture, as in training. */
const BACKDROP = 'rgb(128, 128, 128)';

/** The chosen picture, or undefined where the person chose none. Throws a Failure `picture_unreadable`. */
export async function choosePicture(): Promise<Picture | undefined> {
  try {
    const { tempFiles } = await wx.chooseMedia({
      count: 1,
      mediaType: ['image'],
      sourceType: ['album'],
      sizeType: ['compressed'],
    });
    const chosen = tempFiles[0];
    if (chosen === undefined) return undefined;
    // The person puts the face where the guide frame is; the result is upright whatever the file's orientation says.
    const path = await cropSquare(chosen.tempFilePath);
    const { width, height } = await wx.getImageInfo({ src: path });
    return await readPixels(path, width, height);
  } catch (error) {
    const message = readMessage(error);
    if (message.includes('cancel')) return undefined;
    throw new Failure('picture_unreadable', message);
  }
}

function cropSquare(src: string): Promise<string> {
  return new Promise((resolve, reject) => {
    wx.cropImage({ src, cropScale: '1:1', success: ({ tempFilePath }) => resolve(tempFilePath), fail: reject });
  });
}

async function readPixels(path: string, width: number, height: number): Promise<Picture> {
  if (Math.max(width, height) > MAXIMUM_SIDE) throw new Error(`${width} x ${height} pixels`);
  const canvas = wx.createOffscreenCanvas({ type: '2d', width, height });
  const image = canvas.createImage();
  await new Promise<void>((resolve, reject) => {
    image.onload = () => resolve();
    image.onerror = () => reject(new Error('it cannot be decoded'));
    image.src = path;
  });
  const context = canvas.getContext('2d') as WechatMiniprogram.CanvasRenderingContext.CanvasRenderingContext2D;
  context.fillStyle = BACKDROP;
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0, width, height);
  // One pixel each: the reduction is ours, since a canvas's own is another filter than training's.
  return { width, height, data: context.getImageData(0, 0, width, height).data };
}
