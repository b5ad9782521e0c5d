/** A picture's vector: the square in which the face was placed, training's own preprocessing, the network. */
import { FaceModel } from '../model/session';
import { cropFace, findSquare, Picture, toInput } from '../shared/preprocessing';

export interface FaceVector {
  model_id: string;
  vector: Float32Array;
  /** Wall time of the preprocessing and of the network. */
  milliseconds: { preprocessing: number; network: number };
}

/**
 * Compute the vector of the face in the middle of `picture`, in the square of `fraction` times its shorter side.
 *
 * Throws a Failure as `FaceModel.embed` does.
 */
export async function computeVector(model: FaceModel, picture: Picture, fraction: number): Promise<FaceVector> {
  const { crop, input, model_id } = model.description;
  const start = Date.now();
  const square = findSquare(picture.width, picture.height, fraction);
  const pixels = toInput(cropFace(picture, square, crop.resolution), input);
  const prepared = Date.now();
  const vector = await model.embed(pixels);
  return { model_id, vector, milliseconds: { preprocessing: prepared - start, network: Date.now() - prepared } };
}
