// Builds dist/ from src/ and node_modules/. The same lock file gives the same bytes on every machine.
import { readdirSync, readFileSync, rmSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import * as esbuild from "esbuild";
import { files } from "./basemap.mjs";
import { licences } from "./licences.mjs";

const web = dirname(fileURLToPath(import.meta.url));
const dist = join(web, "dist");
const maxBytes = 1_500_000;
const maxCompressed = 450_000;

rmSync(dist, { recursive: true, force: true });
mkdirSync(join(dist, "assets"), { recursive: true });
const data = files(new URL("node_modules/", import.meta.url));
const result = await esbuild.build({
  absWorkingDir: web,
  entryPoints: { map: "src/main.ts", icon: "src/icon.svg" },
  outdir: "dist/assets",
  entryNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  bundle: true,
  format: "esm",
  target: ["chrome116", "firefox124", "safari17.4"],
  minify: true,
  legalComments: "none", // LICENSES.txt has all of them.
  charset: "utf8",
  metafile: true,
  alias: { leaflet: "leaflet/dist/leaflet-src.esm.js", "leaflet/dist/leaflet.css": "leaflet/dist/leaflet.css" },
  loader: { ".svg": "copy", ".png": "dataurl" },
  plugins: [{
    name: "basemap",
    setup(build) {
      build.onResolve({ filter: /^basemap:/ }, ({ path }) => ({ path: `${path.slice("basemap:".length)}.json`, namespace: "basemap" }));
      build.onLoad({ filter: /.*/, namespace: "basemap" }, ({ path }) => ({ contents: data[basename(path, ".json")], loader: "file" }));
    },
  }],
});

/** The address of the output of an entry point, or of its styles. */
function asset(entryPoint, extension) {
  const [path, output] = Object.entries(result.metafile.outputs).find(([, output]) => output.entryPoint === entryPoint);
  return relative("dist", extension === ".css" ? output.cssBundle : path);
}

let page = readFileSync(join(web, "src/index.html"), "utf8");
for (const [mark, address] of [
  ["SCRIPT", asset("src/main.ts")], ["STYLE", asset("src/main.ts", ".css")], ["ICON", asset("src/icon.svg")],
]) {
  page = page.replace(`"${mark}"`, `"${address}"`);
}
writeFileSync(join(dist, "index.html"), page);
writeFileSync(join(dist, "LICENSES.txt"), licences(web, Object.keys(result.metafile.inputs)));

let [bytes, compressed] = [0, 0];
for (const file of readdirSync(dist, { recursive: true, withFileTypes: true }).filter((file) => file.isFile())) {
  const path = join(file.parentPath ?? file.path, file.name);
  const content = readFileSync(path);
  const size = gzipSync(content, { level: 9 }).length;
  bytes += content.length;
  compressed += size;
  print(relative(dist, path), content.length, size);
}
print("in all", bytes, compressed);
if (bytes > maxBytes || compressed > maxCompressed) {
  throw new Error(`dist/ may have ${maxBytes} bytes, and ${maxCompressed} compressed`);
}

function print(name, size, compressedSize) {
  console.log(`${name.padEnd(32)} ${String(size).padStart(9)} bytes, ${String(compressedSize).padStart(7)} with gzip -9`);
}
