/** A model file, run by WeChat's own inference: pixels in, vector out. */
import { Failure, readMessage } from '../failure';
import { ModelDescription } from './description';
import { StoredModel } from './store';

/** From base library 2.30.0 on. */
const FIRST_BASE_LIBRARY = '2.30.0';
const LOADING_TIMEOUT_MILLISECONDS = 30_000;

/** Float32, no approximate arithmetic: vectors of one face on two phones are to be the same vector. */
const EXACT = 4;

/** What WeChat answers where its inference engine is not installed; clearing WeChat's cache can bring it about. */
const NOT_READY = 2004010;

/** An opened model. */
export class FaceModel {
  constructor(
    readonly description: ModelDescription,
    private readonly session: WechatMiniprogram.InferenceSession,
  ) {}

  /** The vector of one face; pixels: float32 [3 * height * width], colour by colour. */
  async embed(pixels: Float32Array): Promise<Float32Array> {
    const { input, output } = this.description;
    const tensor = { type: input.dtype, data: pixels.buffer as ArrayBuffer, shape: input.shape };
    let tensors: WechatMiniprogram.Tensors;
    try {
      tensors = await this.session.run({ [input.name]: tensor });
    } catch (error) {
      throw new Failure('session_failed', readMessage(error));
    }
    const data = tensors[output.name]?.data;
    if (data === undefined) throw new Failure('wrong_output', `${output.name} is not among ${Object.keys(tensors)}`);
    const vector = new Float32Array(data);
    if (vector.length !== output.length) {
      throw new Failure('wrong_output', `${vector.length} of ${output.length} numbers`);
    }
    if (!vector.every(Number.isFinite)) throw new Failure('wrong_output', 'a number that is not finite');
    return vector;
  }

  close(): void {
    this.session.destroy();
  }
}

/** Open a stored model. Throws a Failure where this WeChat cannot run it, with what it said. */
export function openModel(stored: StoredModel): Promise<FaceModel> {
  return new Promise((resolve, reject) => {
    if (typeof wx.createInferenceSession !== 'function') {
      reject(new Failure('no_inference', `${wx.getAppBaseInfo().SDKVersion} < ${FIRST_BASE_LIBRARY}`));
      return;
    }
    let session: WechatMiniprogram.InferenceSession;
    try {
      session = wx.createInferenceSession({
        model: stored.path,
        precisionLevel: EXACT,
        allowNPU: false,
        allowQuantize: false,
      });
    } catch (error) {
      reject(asSessionFailure(error));
      return;
    }
    // On some phones neither event comes.
    const timer = setTimeout(() => fail({ errMsg: 'neither loaded nor refused' }), LOADING_TIMEOUT_MILLISECONDS);
    const fail = (error: unknown): void => {
      clearTimeout(timer);
      session.destroy();
      reject(asSessionFailure(error));
    };
    session.onError(fail);
    session.onLoad(() => {
      clearTimeout(timer);
      resolve(new FaceModel(stored.description, session));
    });
  });
}

function asSessionFailure(error: unknown): Failure {
  const { errno } = (error ?? {}) as { errno?: unknown };
  return new Failure(errno === NOT_READY ? 'inference_not_ready' : 'session_failed', readMessage(error));
}
