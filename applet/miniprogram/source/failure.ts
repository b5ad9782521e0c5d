/** What can go wrong that a person is told about. `texts.ts` has a sentence for each. */
export type FailureKind =
  | 'not_set_up'
  | 'no_network'
  | 'domain_not_allowed'
  | 'model_unavailable'
  | 'bad_description'
  | 'model_too_large'
  | 'download_damaged'
  | 'no_checksum'
  | 'storage_full'
  | 'no_inference'
  | 'inference_not_ready'
  | 'session_failed'
  | 'wrong_output'
  | 'privacy_refused'
  | 'camera_failed'
  | 'picture_unreadable'
  | 'wrong_model'
  | 'key_refused'
  | 'deletion_refused'
  | 'request_refused'
  | 'too_many_requests'
  | 'server_failed'
  | 'unexpected';

/** An error with a kind that has a text, and a detail for whoever looks after the system. */
export class Failure extends Error {
  readonly kind: FailureKind;
  readonly detail: string;

  constructor(kind: FailureKind, detail = '') {
    super(detail ? `${kind}: ${detail}` : kind);
    this.kind = kind;
    this.detail = detail;
  }
}

/** Anything thrown, as a Failure. By its fields: `instanceof` does not survive the developer tools' ES5. */
export function asFailure(thrown: unknown): Failure {
  if (typeof thrown === 'object' && thrown !== null && 'kind' in thrown && 'detail' in thrown) return thrown as Failure;
  return new Failure('unexpected', readMessage(thrown));
}

/** The message of an Error or of what a wx call hands to `fail`. */
export function readMessage(thrown: unknown): string {
  if (typeof thrown === 'object' && thrown !== null) {
    const { errMsg, message } = thrown as { errMsg?: unknown; message?: unknown };
    if (typeof errMsg === 'string') return errMsg;
    if (typeof message === 'string') return message;
  }
  return String(thrown);
}
