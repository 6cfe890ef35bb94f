/**
 * An upload on a shared disk: a folder whose one file carries its state in its name, so that every step is a rename which one process wins.
 *
 *   <epoch>.idle        nobody writes; the size of the file is the size of the session
 *   <epoch>.busy        somebody writes, or died doing so
 *   <epoch>.cut.<size>  somebody was cut off at <size>; a late writer may still lengthen the file, but never change what is before
 *
 * An append that finds a busy file of exactly its offset takes the session over: it cuts, copies and goes on in a file of its own. The
 * one cut off finds its name gone and fails with CONFLICT. The highest epoch counts.
 */
import { randomUUID } from "node:crypto";
import { constants, copyFile, link, mkdir, open, readdir, rename, rm, stat, truncate, writeFile } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { SlipwayError } from "../core/errors.ts";
import { isErrno } from "./fs-errors.ts";

const STATE_NAME = /^(\d{8})\.(idle|busy|cut)(?:\.(\d{1,15}))?$/;
/** Others may rename between our look and our step; more often than this nobody does. */
const LOOKS = 8;

export interface FsSessionState {
  readonly name: string;
  readonly epoch: number;
  readonly kind: "idle" | "busy" | "cut";
  readonly size: number;
  readonly modifiedAt: number;
}

/** The right to write one session, until `release`. */
export interface FsClaim {
  readonly path: string;
  /** Fails with CONFLICT once somebody else has taken over. */
  confirm(): Promise<void>;
  /** Back to idle; fails with CONFLICT or BLOB_UPLOAD_UNKNOWN when the session was taken or removed meanwhile. */
  release(): Promise<void>;
}

function stateName(epoch: number, kind: "idle" | "busy"): string {
  return `${String(epoch).padStart(8, "0")}.${kind}`;
}

function cutName(epoch: number, size: number): string {
  return `${String(epoch).padStart(8, "0")}.cut.${size}`;
}

export class FsSession {
  readonly dir: string;

  constructor(dir: string) {
    this.dir = dir;
  }

  async create(): Promise<void> {
    try {
      await mkdir(this.dir);
    } catch (error) {
      if (isErrno(error, "EEXIST")) throw new SlipwayError("CONFLICT", { message: "the upload exists already" });
      throw error;
    }
    await writeFile(join(this.dir, stateName(0, "idle")), "", { flag: "wx" });
  }

  /** Null when there is no such session. */
  async state(): Promise<FsSessionState | null> {
    for (let look = 0; look < LOOKS; look += 1) {
      const name = await this.#currentName();
      const match = name === null ? null : STATE_NAME.exec(name);
      if (name === null || !match) return null;
      try {
        const file = await stat(join(this.dir, name));
        const kind = match[2] === "idle" ? "idle" : match[2] === "busy" ? "busy" : "cut";
        const size = kind === "cut" ? Number(match[3]) : file.size;
        return { name, epoch: Number(match[1]), kind, size, modifiedAt: file.mtimeMs };
      } catch (error) {
        if (!isErrno(error, "ENOENT")) throw error;
      }
    }
    throw conflict();
  }

  /** Becomes the one writer at this offset. */
  async claim(offset: number): Promise<FsClaim> {
    for (let look = 0; look < LOOKS; look += 1) {
      const state = await this.state();
      if (!state) throw unknown();
      if (state.size !== offset)
        throw new SlipwayError("CONFLICT", { message: "the upload is at another offset", detail: { offset: state.size } });
      const busy = stateName(state.epoch + 1, "busy");
      if (state.kind === "cut") return await this.#continueCut(state);
      const target = state.kind === "idle" ? busy : cutName(state.epoch + 1, offset);
      if ((await this.#move(state.name, target)) && state.kind === "idle") return this.#claimOf(state.epoch + 1);
    }
    throw conflict();
  }

  /** The path of the file once nobody writes it; a dead writer's session is taken over for that. */
  async settle(size: number): Promise<FsSessionState | null> {
    const state = await this.state();
    if (!state || state.kind === "idle" || state.size !== size) return state;
    const claim = await this.claim(size);
    await claim.release();
    return await this.state();
  }

  path(state: FsSessionState): string {
    return join(this.dir, state.name);
  }

  async #currentName(): Promise<string | null> {
    let names: string[];
    try {
      names = await readdir(this.dir);
    } catch (error) {
      if (isErrno(error, "ENOENT")) return null;
      throw error;
    }
    const states = names.filter((name) => STATE_NAME.test(name)).sort();
    return states.at(-1) ?? null;
  }

  /** False when the name is gone: somebody else was first. */
  async #move(from: string, to: string): Promise<boolean> {
    try {
      await rename(join(this.dir, from), join(this.dir, to));
      return true;
    } catch (error) {
      if (isErrno(error, "ENOENT")) return false;
      throw error;
    }
  }

  async #continueCut(state: FsSessionState): Promise<FsClaim> {
    const copy = join(this.dir, `copy-${randomUUID()}`);
    try {
      await copyFile(this.path(state), copy, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
      await truncate(copy, state.size);
      await link(copy, join(this.dir, stateName(state.epoch + 1, "busy")));
    } catch (error) {
      if (isErrno(error, "EEXIST", "ENOENT")) throw conflict();
      throw error;
    } finally {
      await rm(copy, { force: true });
    }
    await rm(this.path(state), { force: true });
    return this.#claimOf(state.epoch + 1);
  }

  #claimOf(epoch: number): FsClaim {
    const name = stateName(epoch, "busy");
    const lost = async (): Promise<SlipwayError> => ((await this.#currentName()) === null ? unknown() : conflict());
    return {
      path: join(this.dir, name),
      confirm: async () => {
        if ((await this.#currentName()) !== name) throw await lost();
      },
      release: async () => {
        if (!(await this.#move(name, stateName(epoch + 1, "idle")))) throw await lost();
      },
    };
  }
}

/** CONFLICT when somebody took over in this moment. */
export async function openClaimed(claim: FsClaim): Promise<FileHandle> {
  try {
    return await open(claim.path, "r+");
  } catch (error) {
    if (isErrno(error, "ENOENT")) throw conflict();
    throw error;
  }
}

function conflict(): SlipwayError {
  return new SlipwayError("CONFLICT", { message: "another request writes this upload" });
}

function unknown(): SlipwayError {
  return new SlipwayError("BLOB_UPLOAD_UNKNOWN");
}
