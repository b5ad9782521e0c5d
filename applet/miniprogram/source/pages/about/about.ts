/** What leaves the phone, which model runs, and the person's own data: delete it, withdraw the agreement. */
import { findConsent, withdrawConsent } from '../../consent';
import { dropEnrolment, listEnrolments } from '../../enrolments';
import { asFailure } from '../../failure';
import { describeStoredModel, forgetModel } from '../../model/current';
import { getModelFile } from '../../model/description';
import { deletePerson, Enrolment } from '../../server';
import { SETTINGS } from '../../settings';
import { explain, TEXTS } from '../../texts';

interface ModelLines {
  network: string;
  modelId: string;
  bytes: number;
}

Component({
  data: {
    texts: TEXTS,
    server: SETTINGS.server,
    model: null as ModelLines | null,
    enrolments: [] as Enrolment[],
    consent: '',
    message: '',
    failure: '',
  },
  methods: {
    onShow(): void {
      this.setData({ message: '', failure: '' });
      this.refresh();
    },
    refresh(): void {
      const description = describeStoredModel();
      this.setData({
        model:
          description === undefined
            ? null
            : { network: description.network, modelId: description.model_id, bytes: getModelFile(description).bytes },
        enrolments: listEnrolments(),
        consent: findConsent() ?? '',
      });
    },
    async onDelete(event: WechatMiniprogram.TouchEvent): Promise<void> {
      const enrolment = this.data.enrolments[Number(event.currentTarget.dataset.index)];
      if (enrolment === undefined) return;
      this.setData({ message: '', failure: '' });
      try {
        await deletePerson(enrolment);
        // Only now: until the server has deleted it, this phone must know of it.
        dropEnrolment(enrolment);
        this.setData({ message: `${TEXTS.removed} ${enrolment.name}` });
      } catch (error) {
        this.setData({ failure: explain(asFailure(error)) });
      }
      this.refresh();
    },
    async onRemoveModel(): Promise<void> {
      await forgetModel();
      this.refresh();
    },
    onWithdraw(): void {
      withdrawConsent();
      this.setData({ message: TEXTS.withdrawn });
      this.refresh();
    },
  },
});
