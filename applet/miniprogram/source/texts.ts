/** Every sentence that a person sees, in English and Chinese; the phone's language chooses. */
import { Failure, FailureKind } from './failure';

const ENGLISH = {
  tabRecognise: 'Recognise',
  tabEnrol: 'Enrol',
  tabAbout: 'About',

  consentHeading: 'Before the camera opens',
  consentLines: [
    'The picture stays on this phone and is not kept. A network on the phone turns the face into a list of numbers.',
    'Only that list, the name of the network and, when you enrol, the name you type are sent to the server below.',
    'The list is biometric personal data: whoever has it can look for the same face elsewhere, and can reconstruct something that resembles it. Recognising stores nothing on the server; enrolling stores the list and the name until you delete them under “About”.',
    'You are free to decline. For a child under 14 a parent decides.',
  ],
  consentTick: 'I agree that my face is processed in this way.',
  serverLabel: 'Server:',
  readStatement: 'Read the full privacy statement',
  agree: 'Agree',
  decline: 'Decline',
  declined: 'Nothing was captured. Without your agreement there is nothing to do here.',

  guide: 'Put the face into the frame, upright, from forehead to chin, with the eyes on the two marks.',
  choose: 'Choose a picture',
  take: 'Recognise',
  takeEnrolment: 'Enrol this face',
  cameraRefused: 'The camera is not allowed. Allow it in the settings, or choose a picture.',
  cameraFailed: 'The camera cannot be opened.',
  openSettings: 'Open the settings',

  downloading: 'Getting the model ready:',
  working: 'One moment',
  retry: 'Try again',

  known: 'This is',
  stranger: 'Nobody who is enrolled',
  distance: 'Distance (0 same, 1 opposite):',
  threshold: 'accepted up to',
  sent: 'Sent:',
  sentFields: 'model_id, vector',
  sentFieldsEnrol: 'model_id, vector, name',
  bytes: 'bytes',
  timing: 'On the phone:',

  nameLabel: 'Name',
  namePlaceholder: 'The name that recognising will answer with',
  nameMissing: 'Type a name first.',
  enrolled: 'Enrolled:',

  aboutModel: 'Model',
  noModel: 'No model is stored.',
  removeModel: 'Remove it from this phone',
  aboutData: 'Your data on the server',
  noEnrolments: 'Nothing was enrolled from this phone.',
  remove: 'Delete',
  removed: 'Deleted on the server:',
  aboutConsent: 'Agreement',
  consentGiven: 'Given:',
  consentNone: 'Not given.',
  withdraw: 'Withdraw',
  withdrawn: 'Withdrawn. What is enrolled stays on the server until you delete it above.',
  aboutSent: 'What leaves this phone',
  sentExplained: 'The vector, the network’s name and, when you enrol, a name. Never a picture.',

  failures: {
    not_set_up: 'This mini-program has no server yet: its operator sets one in settings.ts.',
    no_network: 'The server cannot be reached. Look at the network and try again.',
    domain_not_allowed: 'WeChat does not let this mini-program ask that server: its operator adds the domain to the account.',
    model_unavailable: 'The model cannot be downloaded at the moment.',
    bad_description: 'The model’s description is not one that this mini-program can use. Tell the operator.',
    model_too_large: 'The model is larger than a mini-program may store. Tell the operator.',
    download_damaged: 'The model arrived damaged and was not used. Try again.',
    no_checksum: 'This WeChat cannot check a downloaded model. Update WeChat.',
    storage_full: 'There is no room for the model on this phone. Free some storage, in WeChat too, and try again.',
    no_inference: 'This WeChat is too old to run a model. Update WeChat.',
    inference_not_ready: 'WeChat’s inference is not ready on this phone. Restart WeChat; if that does not help, install it again.',
    session_failed: 'This phone cannot run the model.',
    wrong_output: 'The model’s answer is not what its description says. Tell the operator.',
    privacy_refused: 'The privacy statement was declined, so nothing is captured.',
    camera_failed: 'The camera sent no picture. Try again.',
    picture_unreadable: 'That picture cannot be read. Choose another.',
    wrong_model: 'The server knows another model than this phone has. Close the mini-program and open it again.',
    key_refused: 'The server does not accept this mini-program’s key. Tell the operator.',
    deletion_refused: 'This mini-program’s key may not delete. Ask the operator to delete this name.',
    request_refused: 'The server did not accept the request.',
    too_many_requests: 'Too many requests. Wait a minute.',
    server_failed: 'The server failed. Try again later.',
    unexpected: 'Something went wrong.',
  } as Record<FailureKind, string>,
};

const CHINESE: typeof ENGLISH = {
  tabRecognise: '识别',
  tabEnrol: '录入',
  tabAbout: '关于',

  consentHeading: '打开摄像头之前',
  consentLines: [
    '照片只留在本机，不会保存。手机上的网络把人脸变成一串数字（特征向量）。',
    '发送到下方服务器的只有这串数字和网络的编号；录入时还有您填写的姓名。',
    '特征向量属于生物识别信息（敏感个人信息）：得到它的人可以在别处比对同一张脸，也可能还原出相似的面容。识别不会在服务器上保存任何内容；录入会保存特征向量和姓名，直到您在“关于”中删除。',
    '您可以不同意。不满十四周岁的，由监护人决定。',
  ],
  consentTick: '我同意按上述方式处理我的人脸信息。',
  serverLabel: '服务器：',
  readStatement: '阅读完整的隐私保护指引',
  agree: '同意',
  decline: '不同意',
  declined: '没有采集任何内容。未经您同意，本程序不做任何处理。',

  guide: '请正对镜头，让脸从额头到下巴充满方框，双眼对准两个标记。',
  choose: '选择照片',
  take: '识别',
  takeEnrolment: '录入这张脸',
  cameraRefused: '未获得摄像头权限。请在设置中允许，或选择照片。',
  cameraFailed: '无法打开摄像头。',
  openSettings: '打开设置',

  downloading: '正在准备模型：',
  working: '请稍候',
  retry: '重试',

  known: '识别结果：',
  stranger: '不在已录入的人员中',
  distance: '距离（0 相同，1 相反）：',
  threshold: '接受上限',
  sent: '已发送：',
  sentFields: 'model_id、vector',
  sentFieldsEnrol: 'model_id、vector、name',
  bytes: '字节',
  timing: '本机用时：',

  nameLabel: '姓名',
  namePlaceholder: '识别时显示的姓名',
  nameMissing: '请先填写姓名。',
  enrolled: '已录入：',

  aboutModel: '模型',
  noModel: '本机没有保存模型。',
  removeModel: '从本机删除',
  aboutData: '您在服务器上的数据',
  noEnrolments: '本机没有录入过任何内容。',
  remove: '删除',
  removed: '已从服务器删除：',
  aboutConsent: '授权',
  consentGiven: '授权时间：',
  consentNone: '未授权。',
  withdraw: '撤回同意',
  withdrawn: '已撤回。已录入的数据会保留在服务器上，直到您在上方删除。',
  aboutSent: '离开本机的内容',
  sentExplained: '特征向量、网络编号；录入时还有姓名。绝不发送照片。',

  failures: {
    not_set_up: '尚未设置服务器：请运营者在 settings.ts 中填写。',
    no_network: '无法连接服务器。请检查网络后重试。',
    domain_not_allowed: '微信不允许访问该服务器：请运营者在后台添加服务器域名。',
    model_unavailable: '暂时无法下载模型。',
    bad_description: '模型说明文件无法使用，请联系运营者。',
    model_too_large: '模型超过了小程序可保存的大小，请联系运营者。',
    download_damaged: '下载的模型已损坏，未被使用。请重试。',
    no_checksum: '当前微信版本无法校验模型，请更新微信。',
    storage_full: '存储空间不足，无法保存模型。请清理手机或微信的存储空间后重试。',
    no_inference: '当前微信版本过低，无法运行模型，请更新微信。',
    inference_not_ready: '微信的推理环境尚未就绪。请重启微信；若仍无效，请重新安装。',
    session_failed: '本机无法运行该模型。',
    wrong_output: '模型输出与说明不符，请联系运营者。',
    privacy_refused: '您未同意隐私保护指引，因此不会采集任何内容。',
    camera_failed: '摄像头没有返回画面，请重试。',
    picture_unreadable: '无法读取该照片，请换一张。',
    wrong_model: '服务器使用的模型与本机不同。请关闭小程序后重新打开。',
    key_refused: '服务器不接受本程序的密钥，请联系运营者。',
    deletion_refused: '本程序的密钥无权删除。请联系运营者删除该姓名。',
    request_refused: '服务器未接受该请求。',
    too_many_requests: '请求过于频繁，请一分钟后再试。',
    server_failed: '服务器出错，请稍后再试。',
    unexpected: '出错了。',
  },
};

export type Texts = typeof ENGLISH;

/** The texts of a language code such as zh_CN or en. */
export function chooseTexts(language: string): Texts {
  return language.startsWith('zh') ? CHINESE : ENGLISH;
}

export const TEXTS: Texts = chooseTexts(wx.getAppBaseInfo().language);

/** The sentence for a failure, with what lies behind it in brackets. */
export function explain(failure: Failure): string {
  const sentence = TEXTS.failures[failure.kind];
  return failure.detail ? `${sentence} (${failure.detail})` : sentence;
}
