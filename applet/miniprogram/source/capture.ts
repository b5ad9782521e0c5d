/** What the pages with a viewfinder share: consent, then the model, then the camera, then a vector. */
import { askForCamera, findConsent, giveConsent } from './consent';
import { choosePicture } from './face/album';
import { takeFrame } from './face/camera';
import { computeVector, FaceVector } from './face/vector';
import { asFailure } from './failure';
import { getModel, OpenedModel } from './model/current';
import { explain } from './texts';

/**
 * The square that the network sees, as a share of the picture's shorter side. The person puts the face into it so that
 * it fills it as training's faces do: in the viewfinder by the guide frame, in a chosen picture by cropping it.
 */
export const FRACTIONS = { camera: 0.6, album: 1 };

export type Step = 'starting' | 'consent' | 'ready' | 'working' | 'failed';

/** What such a page's data holds. */
export interface CaptureState {
  step: Step;
  /** The share of the model that has been downloaded, in percent. */
  percent: number;
  cameraAllowed: boolean;
  /** What went wrong, in the person's language; empty where nothing did. */
  failure: string;
  /** What the person should know although all works. */
  notice: string;
}

export const FIRST_STATE: CaptureState = {
  step: 'starting',
  percent: 0,
  cameraAllowed: false,
  failure: '',
  notice: '',
};

export type Show = (change: Partial<CaptureState>) => void;

/** Whether a page that is shown again has to be brought to `ready` anew. */
export function needsPreparing({ step }: CaptureState): boolean {
  // Choosing a picture hides the page too, and must not start it over.
  return step !== 'working' && !(step === 'ready' && findConsent() !== undefined);
}

/** Bring a page to `ready`, or to `consent` or `failed`. Never throws. */
export async function prepareCapture(show: Show): Promise<void> {
  if (findConsent() === undefined) {
    show({ ...FIRST_STATE, step: 'consent' });
    return;
  }
  show(FIRST_STATE);
  try {
    const { outdated } = await getShownModel(show);
    show({
      step: 'ready',
      cameraAllowed: await askForCamera(),
      notice: outdated === undefined ? '' : explain(outdated),
    });
  } catch (error) {
    show({ step: 'failed', failure: explain(asFailure(error)) });
  }
}

/** Record the person's agreement and go on. Never throws. */
export async function agree(show: Show): Promise<void> {
  try {
    await giveConsent();
  } catch (error) {
    show({ failure: explain(asFailure(error)) });
    return;
  }
  await prepareCapture(show);
}

/**
 * Take a frame or let the person choose a picture, and hand its vector to `use`. Never throws.
 *
 * Nothing is taken without consent, and a second tap while the first is at work does nothing.
 */
export async function capture(
  from: keyof typeof FRACTIONS,
  state: CaptureState,
  show: Show,
  use: (face: FaceVector) => Promise<void>,
): Promise<void> {
  if (state.step !== 'ready') return;
  if (findConsent() === undefined) {
    // Withdrawn on another page.
    show({ ...FIRST_STATE, step: 'consent' });
    return;
  }
  show({ step: 'working', failure: '' });
  try {
    const picture = from === 'camera' ? await takeFrame() : await choosePicture();
    if (picture !== undefined) {
      const { model } = await getShownModel(show);
      await use(await computeVector(model, picture, FRACTIONS[from]));
    }
    show({ step: 'ready' });
  } catch (error) {
    show({ step: 'ready', failure: explain(asFailure(error)) });
  }
}

function getShownModel(show: Show): Promise<OpenedModel> {
  return getModel((share) => show({ percent: Math.round(100 * share) }));
}
