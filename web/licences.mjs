// The licences of what is bundled: of each package with a file in the bundle, and of the data of the base map.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Packages whose files are data: basemap.mjs reads them, so esbuild does not know of them. */
const dataPackages = ["us-atlas", "world-atlas"];

/** Returns the text of LICENSES.txt. Inputs are the paths of all files in the bundle, relative to the folder of the page. */
export function licences(web, inputs) {
  const bundled = inputs.flatMap((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? []);
  const packages = [...new Set([...bundled, ...dataPackages])].sort();
  const apache = readFileSync(join(web, "../LICENSE"), "utf8");
  const parts = packages.map((name) => {
    const folder = join(web, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const heading = `${name} ${version} (${license})`;
    if (existsSync(join(folder, "LICENSE"))) {
      return [heading, readFileSync(join(folder, "LICENSE"), "utf8").trim()];
    }
    // These packages name their licence and come without its text, which is the one of this repository; the second one stands in a source file.
    switch (license) {
      case "Apache-2.0":
        return [heading, "The text of the Apache License 2.0 is at the end of this file."];
      case "(Apache-2.0 AND BSD-3-Clause)":
        return [heading, "The text of the Apache License 2.0 is at the end of this file. For the parts from Google's Protocol Buffers:", header(folder)];
      default:
        throw new Error(`${name} has no file LICENSE, and the text of ${license} is not known`);
    }
  });
  return [
    ["The map page of RouteGuide (Apache-2.0), whose text is at the end of this file, contains the following."],
    ...parts,
    ["Data of the base map",
      "Outlines and names of countries: Made with Natural Earth, in the public domain (https://www.naturalearthdata.com), by way of world-atlas.",
      "Outlines and names of states and counties: US Census Bureau's cartographic boundary files, in the public domain, by way of us-atlas.",
      "Both were simplified."],
    ["Apache License 2.0", apache.trim()],
  ].map((paragraphs) => paragraphs.join("\n\n")).join(`\n\n${"=".repeat(78)}\n\n`) + "\n";
}

/** The comment that a source file of @bufbuild/protobuf begins with. */
function header(folder) {
  const lines = readFileSync(join(folder, "dist/esm/wire/varint.js"), "utf8").split("\n");
  return lines.slice(0, lines.findIndex((line) => !line.startsWith("//"))).map((line) => line.slice(3)).join("\n");
}
