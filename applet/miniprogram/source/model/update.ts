/** The operator's model on the phone: downloaded once, checked, and again only when the operator has another. */
import { asFailure, Failure, readMessage } from '../failure';
import { ask, download } from '../network';
import { SETTINGS } from '../settings';
import { getModelFile, ModelDescription, ModelFile, parseDescription } from './description';
import { findStoredModel, keepModel, StoredModel } from './store';

export interface CurrentModel extends StoredModel {
  /** Why this is not the operator's newest model, where it is not. */
  outdated?: Failure;
}

/**
 * The model to run. onProgress: told the share of a download, 0 to 1.
 *
 * A model that is here stays in use when the operator's cannot be asked for, comes damaged or is too large. Throws a
 * Failure where there is none to fall back to.
 */
export async function updateModel(onProgress: (share: number) => void): Promise<CurrentModel> {
  try {
    const description = await fetchDescription();
    const stored = findStoredModel();
    if (stored !== undefined && getModelFile(stored.description).sha256 === getModelFile(description).sha256) {
      return { path: stored.path, description };
    }
    return await replaceModel(description, onProgress);
  } catch (error) {
    const stored = findStoredModel();
    if (stored === undefined) throw error;
    return { ...stored, outdated: asFailure(error) };
  }
}

async function fetchDescription(): Promise<ModelDescription> {
  if (!SETTINGS.models) throw new Failure('not_set_up', 'models');
  const { status, body } = await ask({ url: `${SETTINGS.models}/export.json`, method: 'GET' });
  if (status !== 200) throw new Failure('model_unavailable', `export.json: HTTP ${status}`);
  return parseDescription(body);
}

async function replaceModel(
  description: ModelDescription,
  onProgress: (share: number) => void,
): Promise<StoredModel> {
  const file = getModelFile(description);
  if (file.bytes > SETTINGS.storageCapBytes) {
    throw new Failure('model_too_large', `${file.bytes} of ${SETTINGS.storageCapBytes} bytes`);
  }
  const path = await download(`${SETTINGS.models}/${file.name}`, onProgress);
  await checkFile(path, file);
  return keepModel(path, description);
}

async function checkFile(path: string, file: ModelFile): Promise<void> {
  const { size, digest } = await computeDigest(path);
  if (size !== file.bytes) throw new Failure('download_damaged', `${size} of ${file.bytes} bytes`);
  // A WeChat that does not know SHA-256 may answer with a shorter digest of another kind.
  if (digest.length !== 64) throw new Failure('no_checksum');
  if (digest.toLowerCase() !== file.sha256) throw new Failure('download_damaged', `sha256 ${digest}`);
}

function computeDigest(filePath: string): Promise<WechatMiniprogram.GetFileInfoSuccessCallbackResult> {
  return new Promise((resolve, reject) => {
    wx.getFileSystemManager().getFileInfo({
      filePath,
      digestAlgorithm: 'sha256',
      success: resolve,
      fail: (error) => reject(new Failure('no_checksum', readMessage(error))),
    });
  });
}
