/**
 * Secrets at rest: AES-256-GCM with the key's id in front, bound to a context, so that a sealed value copied into another row or purpose
 * does not open there.
 */
import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from "node:crypto";
import { link, mkdir, open, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { SlipwayError } from "../core/errors.ts";
import type { Queryable } from "../db/pool.ts";

export interface Encryption {
  readonly keyId: string;
  /** `context` names what the value is and whose, such as "signing-key:<kid>"; decrypt must be given the same. */
  encrypt(plaintext: string, context: string): string;
  /** Throws INTERNAL for a value that was sealed with another key or context, or was changed. */
  decrypt(sealed: string, context: string): string;
  /** A key of its own for another use, such as keyed hashes. */
  deriveKey(purpose: string): Buffer;
}

const VERSION = "v1";
const KEY_BYTES = 32;
const IV_BYTES = 12;
const TAG_BYTES = 16;
const KEY_FILE = "encryption.key";

export function createEncryption(key: Buffer): Encryption {
  if (key.length !== KEY_BYTES) throw new SlipwayError("CONFIG_INVALID", { message: `an encryption key has ${KEY_BYTES} bytes` });
  const keyId = createHash("sha256").update("slipway key id").update(key).digest("hex").slice(0, 8);
  return {
    keyId,
    encrypt(plaintext, context) {
      const iv = randomBytes(IV_BYTES);
      const cipher = createCipheriv("aes-256-gcm", key, iv).setAAD(boundData(keyId, context));
      const body = Buffer.concat([cipher.update(plaintext, "utf8"), cipher.final(), cipher.getAuthTag()]);
      return [VERSION, keyId, iv.toString("base64url"), body.toString("base64url")].join(".");
    },
    decrypt(sealed, context) {
      const [version, sealedWith, iv = "", text = "", ...rest] = sealed.split(".");
      if (version !== VERSION || rest.length > 0) throw unreadable("it is not in a known format");
      if (sealedWith !== keyId) throw unreadable(`it was sealed with key ${String(sealedWith)}, the key in use is ${keyId}`);
      const body = Buffer.from(text, "base64url");
      if (body.length < TAG_BYTES) throw unreadable("it is cut short");
      try {
        const decipher = createDecipheriv("aes-256-gcm", key, Buffer.from(iv, "base64url"), { authTagLength: TAG_BYTES });
        decipher.setAAD(boundData(keyId, context)).setAuthTag(body.subarray(-TAG_BYTES));
        return Buffer.concat([decipher.update(body.subarray(0, -TAG_BYTES)), decipher.final()]).toString("utf8");
      } catch (error) {
        throw unreadable("it does not belong here or was changed", error);
      }
    },
    deriveKey: (purpose) => Buffer.from(hkdfSync("sha256", key, "", `slipway:${purpose}`, KEY_BYTES)),
  };
}

function boundData(keyId: string, context: string): Buffer {
  return Buffer.from(`${VERSION}|${keyId}|${context}`, "utf8");
}

function unreadable(reason: string, cause?: unknown): SlipwayError {
  return new SlipwayError("INTERNAL", { message: `a stored secret cannot be read: ${reason}`, cause });
}

/** The configured key, else the one kept in the data folder, made at the first start. */
export async function loadEncryption(options: { key: Buffer | null; dataDir: string }): Promise<Encryption> {
  return createEncryption(options.key ?? (await keptKey(options.dataDir)));
}

async function keptKey(dataDir: string): Promise<Buffer> {
  const path = join(dataDir, KEY_FILE);
  await mkdir(dataDir, { recursive: true });
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
    return writeOnce(path, `${randomBytes(KEY_BYTES).toString("hex")}\n`);
  });
  const key = Buffer.from(text.trim(), "hex");
  if (key.length !== KEY_BYTES) throw new SlipwayError("CONFIG_INVALID", { message: `${path}: expected 64 hexadecimal digits` });
  return key;
}

/**
 * Writes the file with mode 0600 unless another process was faster, and returns what it holds then. A link either makes the whole file
 * appear or fails.
 */
export async function writeOnce(path: string, text: string): Promise<string> {
  const draft = `${path}.${process.pid}.${randomBytes(4).toString("hex")}`;
  const file = await open(draft, "wx", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  try {
    await link(draft, path);
    return text;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return await readFile(path, "utf8");
  } finally {
    await rm(draft, { force: true });
  }
}

const CHECK_TEXT = "slipway";
const CHECK_CONTEXT = "encryption-check";

/** Throws CONFIG_INVALID when the database was written with another key. The first caller decides which key it is. */
export async function verifyEncryptionKey(database: Queryable, encryption: Encryption): Promise<void> {
  await database.query("INSERT INTO encryption_check (sealed) VALUES ($1) ON CONFLICT DO NOTHING", [
    encryption.encrypt(CHECK_TEXT, CHECK_CONTEXT),
  ]);
  const { rows } = await database.query<{ sealed: string }>("SELECT sealed FROM encryption_check");
  try {
    encryption.decrypt(rows[0]?.sealed ?? "", CHECK_CONTEXT);
  } catch (error) {
    throw new SlipwayError("CONFIG_INVALID", {
      message: "SLIPWAY_ENCRYPTION_KEY: the database holds secrets that were sealed with another key; start with that key",
      cause: error,
    });
  }
}
