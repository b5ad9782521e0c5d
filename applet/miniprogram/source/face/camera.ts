/** One frame of the camera that a page shows. */
import { Failure, readMessage } from '../failure';
import { Picture } from '../shared/preprocessing';

const FRAME_TIMEOUT_MILLISECONDS = 5_000;

/** The next frame. Throws a Failure `camera_failed` where none comes. */
export function takeFrame(): Promise<Picture> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown): void => {
      clearTimeout(timer);
      listener.stop();
      reject(new Failure('camera_failed', readMessage(error)));
    };
    const timer = setTimeout(() => fail({ errMsg: 'no frame' }), FRAME_TIMEOUT_MILLISECONDS);
    const listener = wx.createCameraContext().onCameraFrame((frame) => {
      const { width, height, data } = frame;
      if (data.byteLength !== 4 * width * height) {
        fail({ errMsg: `${data.byteLength} bytes for ${width} x ${height} pixels` });
        return;
      }
      clearTimeout(timer);
      listener.stop();
      // A copy: the buffer is the camera's, and its next frame may lie in it.
      resolve({ width, height, data: new Uint8Array(data.slice(0)) });
    });
    listener.start({ fail });
  });
}
