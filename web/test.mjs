// Runs the tests in test/, each bundled as the page is, with the test runner of node.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const web = dirname(fileURLToPath(import.meta.url));
const outdir = mkdtempSync(join(tmpdir(), "routeguide-web-"));
let status = 1;
try {
  await esbuild.build({
    absWorkingDir: web,
    entryPoints: readdirSync(join(web, "test")).filter((file) => file.endsWith("_test.ts")).map((file) => join("test", file)),
    outdir,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    format: "esm",
    platform: "node",
    sourcemap: "inline",
  });
  const tests = readdirSync(outdir).map((file) => join(outdir, file));
  status = spawnSync(process.execPath, ["--enable-source-maps", "--test", "--test-reporter=spec", ...tests], { stdio: "inherit" }).status ?? 1;
} finally {
  rmSync(outdir, { recursive: true });
}
process.exit(status);
