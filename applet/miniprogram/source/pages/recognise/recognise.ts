/** Who is this? The camera or a picture, the vector, the server's answer. */
import { agree, capture, FIRST_STATE, needsPreparing, prepareCapture } from '../../capture';
import { matchFace } from '../../server';
import { TEXTS } from '../../texts';

interface Answer {
  accepted: boolean;
  name: string;
  distance: string;
  threshold: string;
  bytesSent: number;
  preprocessing: number;
  network: number;
}

Component({
  data: { ...FIRST_STATE, texts: TEXTS, declined: false, answer: null as Answer | null },
  methods: {
    onShow(): void {
      if (needsPreparing(this.data)) void this.prepare();
    },
    prepare(): Promise<void> {
      this.setData({ answer: null, declined: false });
      return prepareCapture((change) => this.setData(change));
    },
    onAgree(): Promise<void> {
      this.setData({ declined: false });
      return agree((change) => this.setData(change));
    },
    onDecline(): void {
      this.setData({ declined: true });
    },
    onTake(): Promise<void> {
      return this.recognise('camera');
    },
    onChoose(): Promise<void> {
      return this.recognise('album');
    },
    recognise(from: 'camera' | 'album'): Promise<void> {
      this.setData({ answer: null });
      return capture(from, this.data, (change) => this.setData(change), async (face) => {
        const match = await matchFace(face);
        const answer: Answer = {
          accepted: match.accepted,
          name: match.name,
          distance: match.distance === null ? '' : match.distance.toFixed(3),
          threshold: match.threshold.toFixed(3),
          bytesSent: match.bytes_sent,
          ...face.milliseconds,
        };
        this.setData({ answer });
      });
    },
  },
});
