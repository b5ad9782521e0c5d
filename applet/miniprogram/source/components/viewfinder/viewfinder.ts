/**
 * The camera with its guide frame, and the two ways to a picture. Triggers `take`, `choose` and `settle`: the person
 * came back from WeChat's settings.
 *
 * The viewfinder is square and shows the middle of the camera's frame, so the guide frame's share of it is the share
 * of the frame's shorter side that the network sees.
 */
import { FRACTIONS } from '../../capture';
import { EYES } from '../../shared/alignment';
import { TEXTS } from '../../texts';

Component({
  options: { addGlobalClass: true },
  properties: {
    cameraAllowed: Boolean,
    busy: Boolean,
    action: String,
  },
  data: {
    texts: TEXTS,
    cameraFailure: '',
    guidePercent: 100 * FRACTIONS.camera,
    marks: EYES.map(([x, y]) => ({ left: 100 * x, top: 100 * y })),
  },
  methods: {
    onTake(): void {
      this.triggerEvent('take');
    },
    onChoose(): void {
      this.triggerEvent('choose');
    },
    onCameraError(event: WechatMiniprogram.CustomEvent<{ errMsg?: string }>): void {
      this.setData({ cameraFailure: event.detail.errMsg ?? '' });
    },
    onOpenSettings(): void {
      wx.openSetting({ complete: () => this.triggerEvent('settle') });
    },
  },
});
