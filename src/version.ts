/** The version of this program, from package.json. */
import { readFileSync } from "node:fs";

interface PackageManifest {
  readonly version: string;
}

const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as PackageManifest;

export const VERSION = manifest.version;
