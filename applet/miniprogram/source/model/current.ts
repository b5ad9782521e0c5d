/** The one opened model that all pages share. */
import { Failure } from '../failure';
import { FaceModel, openModel } from './session';
import { findStoredModel, removeStoredModel, StoredModel } from './store';
import { updateModel } from './update';

export interface OpenedModel {
  model: FaceModel;
  /** Why it is not the operator's newest, where it is not. */
  outdated?: Failure;
}

let opened: Promise<OpenedModel> | undefined;

/** The opened model; the first call updates and opens it, and a failed one is tried again by the next. */
export function getModel(onProgress: (share: number) => void): Promise<OpenedModel> {
  opened ??= openCurrentModel(onProgress).catch((error: unknown) => {
    opened = undefined;
    throw error;
  });
  return opened;
}

/** Close the model and remove it from the phone. */
export async function forgetModel(): Promise<void> {
  const closing = opened;
  opened = undefined;
  removeStoredModel();
  await closing?.then(({ model }) => model.close(), () => undefined);
}

/** The stored model's description and size, without opening it. */
export function describeStoredModel(): StoredModel['description'] | undefined {
  return findStoredModel()?.description;
}

async function openCurrentModel(onProgress: (share: number) => void): Promise<OpenedModel> {
  const current = await updateModel(onProgress);
  const model = await openModel(current);
  return current.outdated === undefined ? { model } : { model, outdated: current.outdated };
}
