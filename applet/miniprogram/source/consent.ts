/** The person's agreement, asked for before the camera is opened or a picture is read, and kept with its date. */
import { Failure, readMessage } from './failure';

/** Raised when what is done with the data changes: then everybody is asked again. */
const CONSENT_VERSION = 1;
const RECORD_KEY = 'consent';

interface ConsentRecord {
  version: number;
  /** ISO 8601. */
  given_at: string;
}

/** When the person agreed to what is done today, or undefined. */
export function findConsent(): string | undefined {
  const record: unknown = wx.getStorageSync(RECORD_KEY);
  if (typeof record !== 'object' || record === null) return undefined;
  const { version, given_at } = record as ConsentRecord;
  return version === CONSENT_VERSION ? given_at : undefined;
}

/**
 * Record that the person agreed, here and with WeChat.
 *
 * WeChat shows its own question with the operator's privacy statement where the person has not answered it yet. Throws
 * a Failure `privacy_refused` where that was refused; nothing is recorded then.
 */
export async function giveConsent(): Promise<void> {
  await agreeWithWeChat();
  const record: ConsentRecord = { version: CONSENT_VERSION, given_at: new Date().toISOString() };
  wx.setStorageSync(RECORD_KEY, record);
}

/** From here on nothing is captured until the person agrees again. */
export function withdrawConsent(): void {
  wx.removeStorageSync(RECORD_KEY);
}

/** Whether the camera may be opened. Asks the person the first time only: WeChat shows its question once. */
export function askForCamera(): Promise<boolean> {
  return new Promise((resolve) => {
    wx.authorize({ scope: 'scope.camera', success: () => resolve(true), fail: () => resolve(false) });
  });
}

function agreeWithWeChat(): Promise<void> {
  // From base library 2.32.3 on; before it WeChat asks no such question.
  if (typeof wx.requirePrivacyAuthorize !== 'function') return Promise.resolve();
  return new Promise((resolve, reject) => {
    wx.requirePrivacyAuthorize({
      success: () => resolve(),
      fail: (error) => reject(new Failure('privacy_refused', readMessage(error))),
    });
  });
}
