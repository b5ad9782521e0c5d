/** What the operator sets before uploading. Whatever stands here can be read by anyone who has the mini-program. */
export interface Settings {
  /** Where `ffem serve` runs, such as https://faces.example.com; no slash at the end. */
  server: string;
  /** The folder that `ffem export --format onnx --out DIR` wrote, on a web server or CDN; no slash at the end. */
  models: string;
  /** The server's key for this mini-program: enrol and match, nothing more. */
  apiKey: string;
  /** The most that the stored model may take of the phone's storage, in bytes: 10 MB is WeChat's cautious limit. */
  storageCapBytes: number;
}

export const SETTINGS: Settings = {
  server: '',
  models: '',
  apiKey: '',
  storageCapBytes: 10_000_000,
};
