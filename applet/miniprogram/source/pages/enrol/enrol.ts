/** A name and a face, so that the server knows the person from then on. */
import { agree, capture, FIRST_STATE, needsPreparing, prepareCapture } from '../../capture';
import { rememberEnrolment } from '../../enrolments';
import { enrolFace } from '../../server';
import { TEXTS } from '../../texts';

Component({
  data: { ...FIRST_STATE, texts: TEXTS, declined: false, name: '', enrolled: '', bytesSent: 0 },
  methods: {
    onShow(): void {
      if (needsPreparing(this.data)) void this.prepare();
    },
    prepare(): Promise<void> {
      this.setData({ enrolled: '', declined: false });
      return prepareCapture((change) => this.setData(change));
    },
    onAgree(): Promise<void> {
      this.setData({ declined: false });
      return agree((change) => this.setData(change));
    },
    onDecline(): void {
      this.setData({ declined: true });
    },
    onName(event: WechatMiniprogram.Input): void {
      this.setData({ name: event.detail.value });
    },
    onTake(): Promise<void> {
      return this.enrol('camera');
    },
    onChoose(): Promise<void> {
      return this.enrol('album');
    },
    async enrol(from: 'camera' | 'album'): Promise<void> {
      const name = this.data.name.trim();
      if (!name) {
        this.setData({ failure: TEXTS.nameMissing });
        return;
      }
      this.setData({ enrolled: '' });
      await capture(from, this.data, (change) => this.setData(change), async (face) => {
        const { enrolment, bytes_sent } = await enrolFace(face, name);
        rememberEnrolment(enrolment);
        this.setData({ enrolled: enrolment.name, bytesSent: bytes_sent });
      });
    },
  },
});
