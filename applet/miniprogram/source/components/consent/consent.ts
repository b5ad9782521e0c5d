/** What is done with a face, and the person's answer. Triggers `agree` and `decline`. */
import { SETTINGS } from '../../settings';
import { TEXTS } from '../../texts';

Component({
  options: { addGlobalClass: true },
  data: { texts: TEXTS, server: SETTINGS.server, ticked: false },
  methods: {
    onTick(): void {
      this.setData({ ticked: !this.data.ticked });
    },
    onAgree(): void {
      if (this.data.ticked) this.triggerEvent('agree');
    },
    onDecline(): void {
      this.triggerEvent('decline');
    },
    onRead(): void {
      // From base library 2.32.3 on: the statement that the operator filed with WeChat.
      if (typeof wx.openPrivacyContract === 'function') wx.openPrivacyContract({});
    },
  },
});
