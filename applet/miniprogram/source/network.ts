/** wx.request and wx.downloadFile as promises that fail with a Failure. */
import { Failure, readMessage } from './failure';

export interface Response {
  status: number;
  body: unknown;
}

export interface Question {
  url: string;
  method: 'GET' | 'POST' | 'DELETE';
  headers?: Record<string, string>;
  /** JSON text, or nothing. */
  body?: string;
}

const REQUEST_TIMEOUT_MILLISECONDS = 15_000;
const DOWNLOAD_TIMEOUT_MILLISECONDS = 300_000;

/** Ask once. Any HTTP status is a response; only what brought none is a Failure. */
export function ask(question: Question): Promise<Response> {
  return new Promise((resolve, reject) => {
    wx.request({
      url: question.url,
      method: question.method,
      header: { 'content-type': 'application/json', ...question.headers },
      ...(question.body === undefined ? {} : { data: question.body }),
      timeout: REQUEST_TIMEOUT_MILLISECONDS,
      success: ({ statusCode, data }) => resolve({ status: statusCode, body: data }),
      fail: (error) => reject(asNetworkFailure(error)),
    });
  });
}

/**
 * Download into a temporary file and return its path.
 *
 * onProgress: told the share that has arrived, 0 to 1. A download that is cut off is a Failure and leaves no file.
 */
export function download(url: string, onProgress: (share: number) => void): Promise<string> {
  return new Promise((resolve, reject) => {
    const task = wx.downloadFile({
      url,
      timeout: DOWNLOAD_TIMEOUT_MILLISECONDS,
      success: ({ statusCode, tempFilePath }) => {
        if (statusCode === 200) resolve(tempFilePath);
        else reject(new Failure('model_unavailable', `HTTP ${statusCode}`));
      },
      fail: (error) => reject(asNetworkFailure(error)),
    });
    task.onProgressUpdate(({ progress }) => onProgress(progress / 100));
  });
}

function asNetworkFailure(error: unknown): Failure {
  const message = readMessage(error);
  // WeChat asks only servers that are on the list of the mini-program's account.
  if (message.includes('domain list')) return new Failure('domain_not_allowed', message);
  return new Failure('no_network', message);
}
