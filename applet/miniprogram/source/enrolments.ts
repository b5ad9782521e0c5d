/** Who was enrolled from this phone, so that they can be deleted on the server from here. */
import { Enrolment } from './server';

const RECORD_KEY = 'enrolments';

/** One entry a person, newest last. */
export function listEnrolments(): Enrolment[] {
  const records: unknown = wx.getStorageSync(RECORD_KEY);
  return Array.isArray(records) ? (records as Enrolment[]) : [];
}

export function rememberEnrolment(enrolment: Enrolment): void {
  dropEnrolment(enrolment);
  wx.setStorageSync(RECORD_KEY, [...listEnrolments(), enrolment]);
}

export function dropEnrolment({ person_id }: Enrolment): void {
  wx.setStorageSync(
    RECORD_KEY,
    listEnrolments().filter((other) => other.person_id !== person_id),
  );
}
