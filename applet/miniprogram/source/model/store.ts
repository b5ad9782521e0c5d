/**
 * The one model that is kept on the phone, in the mini-program's own files.
 *
 * A record in wx storage says which file is the model; the file is named after its content. Each step leaves a state
 * that the next start can go on from: a record without its file counts as no model, a file without a record is removed.
 */
import { Failure, readMessage } from '../failure';
import { SETTINGS } from '../settings';
import { getModelFile, ModelDescription } from './description';

export interface StoredModel {
  path: string;
  description: ModelDescription;
}

const RECORD_KEY = 'model';
const STORAGE_FULL = 1300202;

/** The model that is here, or undefined. */
export function findStoredModel(): StoredModel | undefined {
  const stored = readRecord();
  return stored !== undefined && isWhole(stored) ? stored : undefined;
}

/**
 * Keep a checked, temporary file as the model and drop the one before it.
 *
 * Where both fit the cap, the old one goes last; where they do not, it makes room first. Throws a Failure
 * `storage_full` when there is no room even then; the old one is gone in that case.
 */
export async function keepModel(temporaryPath: string, description: ModelDescription): Promise<StoredModel> {
  const file = getModelFile(description);
  const kept: StoredModel = { path: `${wx.env.USER_DATA_PATH}/${file.sha256.slice(0, 16)}.onnx`, description };
  const old = readRecord();
  removeStrayModels(old?.path);
  const both = file.bytes + (old === undefined ? 0 : getModelFile(old.description).bytes);
  if (both > SETTINGS.storageCapBytes) removeStoredModel();
  try {
    await saveFile(temporaryPath, kept.path);
  } catch (error) {
    if (!isStorageFull(error) || readRecord() === undefined) throw asStorageFailure(error);
    removeStoredModel();
    try {
      await saveFile(temporaryPath, kept.path);
    } catch (again) {
      throw asStorageFailure(again);
    }
  }
  wx.setStorageSync(RECORD_KEY, kept);
  removeStrayModels(kept.path);
  return kept;
}

/** Remove the model from the phone. */
export function removeStoredModel(): void {
  wx.removeStorageSync(RECORD_KEY);
  removeStrayModels(undefined);
}

function readRecord(): StoredModel | undefined {
  const record: unknown = wx.getStorageSync(RECORD_KEY);
  return typeof record === 'object' && record !== null ? (record as StoredModel) : undefined;
}

function isWhole(stored: StoredModel): boolean {
  try {
    const stats = wx.getFileSystemManager().statSync(stored.path, false) as WechatMiniprogram.Stats;
    return stats.size === getModelFile(stored.description).bytes;
  } catch {
    return false;
  }
}

function removeStrayModels(wanted: string | undefined): void {
  const files = wx.getFileSystemManager();
  for (const name of files.readdirSync(wx.env.USER_DATA_PATH)) {
    const path = `${wx.env.USER_DATA_PATH}/${name}`;
    if (name.endsWith('.onnx') && path !== wanted) files.unlinkSync(path);
  }
}

function saveFile(tempFilePath: string, filePath: string): Promise<void> {
  return new Promise((resolve, reject) => {
    wx.getFileSystemManager().saveFile({ tempFilePath, filePath, success: () => resolve(), fail: reject });
  });
}

function isStorageFull(error: unknown): boolean {
  const code = (error as { errCode?: unknown; errno?: unknown }) ?? {};
  return code.errCode === STORAGE_FULL || code.errno === STORAGE_FULL || readMessage(error).includes('maximum size');
}

function asStorageFailure(error: unknown): Failure {
  return new Failure(isStorageFull(error) ? 'storage_full' : 'unexpected', readMessage(error));
}
