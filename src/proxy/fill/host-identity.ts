/**
 * Who can see the same staging files. A host's name alone says too little: containers of one host have folders of their own, and two hosts may share
 * a disk that only seems to. So the name of the host goes together with a mark in the folder.
 */
import { randomBytes } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { isErrno } from "../../storage/fs-errors.ts";

export async function hostIdentity(folder: string): Promise<string> {
  const path = join(folder, "identity");
  await mkdir(folder, { recursive: true, mode: 0o700 });
  try {
    await writeFile(path, randomBytes(8).toString("hex"), { flag: "wx", mode: 0o600 });
  } catch (error) {
    if (!isErrno(error, "EEXIST")) throw error;
  }
  return `${hostname()}/${await readFile(path, "utf8")}`;
}
