/** The recognition server, `ffem serve`: vectors in, names out. Nothing else is ever sent. */
import { FaceVector } from './face/vector';
import { Failure } from './failure';
import { ask, Response } from './network';
import { SETTINGS } from './settings';
import { makeBody } from './shared/matching';

/** The server's answer to one face (Eq. 6 and 7: nearest person, accepted at distance <= threshold). */
export interface Match {
  accepted: boolean;
  /** Empty for a stranger. */
  name: string;
  /** 0 to 1; null where nobody is enrolled. */
  distance: number | null;
  threshold: number;
  /** Of the request's body. */
  bytes_sent: number;
}

/** A person whom the server knows from now on. */
export interface Enrolment {
  person_id: string;
  name: string;
  /** ISO 8601, by this phone's clock. */
  enrolled_at: string;
}

/** Who is it? Throws a Failure. */
export async function matchFace(face: FaceVector): Promise<Match> {
  const body = makeBody(face.model_id, face.vector);
  const answer = await call('POST', '/v1/match', body);
  const { name, distance, threshold } = answer;
  if (typeof threshold !== 'number' || !(distance === null || typeof distance === 'number')) throw misunderstood(answer);
  return {
    accepted: typeof name === 'string',
    name: typeof name === 'string' ? name : '',
    distance,
    threshold,
    bytes_sent: countBytes(body),
  };
}

/** Add the face to the person `name`, who is new or known. Throws a Failure. */
export async function enrolFace(face: FaceVector, name: string): Promise<{ enrolment: Enrolment; bytes_sent: number }> {
  const body = makeBody(face.model_id, face.vector, name);
  const answer = await call('POST', '/v1/enrol', body);
  if (typeof answer.person_id !== 'string' || typeof answer.name !== 'string') throw misunderstood(answer);
  const enrolled_at = new Date().toISOString();
  return { enrolment: { person_id: answer.person_id, name: answer.name, enrolled_at }, bytes_sent: countBytes(body) };
}

/** Delete a person with all their vectors. Someone the server no longer knows counts as deleted. Throws a Failure. */
export async function deletePerson({ person_id }: Enrolment): Promise<void> {
  const response = await send('DELETE', `/v1/people/${encodeURIComponent(person_id)}`);
  if (response.status === 403) throw new Failure('deletion_refused');
  if (response.status !== 404) checkStatus(response);
}

/** The text's length in UTF-8. */
function countBytes(text: string): number {
  return encodeURIComponent(text).replace(/%../g, '.').length;
}

async function call(method: 'POST', path: string, body: string): Promise<Record<string, unknown>> {
  const response = await send(method, path, body);
  checkStatus(response);
  const answer = response.body;
  if (typeof answer !== 'object' || answer === null) throw misunderstood(answer);
  return answer as Record<string, unknown>;
}

async function send(method: 'POST' | 'DELETE', path: string, body?: string): Promise<Response> {
  if (!SETTINGS.server) throw new Failure('not_set_up', 'server');
  const headers = SETTINGS.apiKey ? { authorization: `Bearer ${SETTINGS.apiKey}` } : {};
  return ask({ url: SETTINGS.server + path, method, headers, ...(body === undefined ? {} : { body }) });
}

function checkStatus({ status, body }: Response): void {
  if (status >= 200 && status < 300) return;
  const detail = `HTTP ${status}${describeRefusal(body)}`;
  if (status === 401 || status === 403) throw new Failure('key_refused', detail);
  if (status === 409) throw new Failure('wrong_model', detail);
  if (status === 429) throw new Failure('too_many_requests', detail);
  throw new Failure(status >= 500 ? 'server_failed' : 'request_refused', detail);
}

/** The server's own sentence, where it gave one. */
function describeRefusal(body: unknown): string {
  const detail = typeof body === 'object' && body !== null ? (body as { detail?: unknown }).detail : undefined;
  return typeof detail === 'string' ? `: ${detail}` : '';
}

function misunderstood(answer: unknown): Failure {
  return new Failure('server_failed', `an answer that is not understood: ${JSON.stringify(answer)}`);
}
