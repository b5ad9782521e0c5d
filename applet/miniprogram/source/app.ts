import { TEXTS } from './texts';

App({
  onLaunch() {
    // app.json cannot speak two languages.
    const tabs = [TEXTS.tabRecognise, TEXTS.tabEnrol, TEXTS.tabAbout];
    tabs.forEach((text, index) => wx.setTabBarItem({ index, text, fail: () => undefined }));
  },
});
