// What basemap.mjs makes at build time: the address of a file beside the script.
declare module "basemap:*" {
  const file: string;
  export default file;
}

declare module "*.css";
