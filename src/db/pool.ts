/**
 * The one door to Postgres. Errors of the connection become DATABASE_UNAVAILABLE, so that callers can serve what they know; everything
 * else stays a pg error. A transaction is a callback, so that no connection outlives the work that it was taken for.
 */
import pg from "pg";
import { SlipwayError } from "../core/errors.ts";

export interface Queryable {
  query<Row extends pg.QueryResultRow>(text: string, values?: readonly unknown[]): Promise<pg.QueryResult<Row>>;
}

export interface DatabaseOptions {
  readonly url: string;
  /** Connections of this process. */
  readonly poolSize: number;
  /** Longest wait for a free connection. */
  readonly acquireTimeoutMs?: number;
  /** Longest run of one statement. */
  readonly statementTimeoutMs?: number;
  readonly applicationName?: string;
  readonly onError?: (error: Error) => void;
}

export interface DatabaseStats {
  readonly total: number;
  readonly idle: number;
  readonly waiting: number;
  readonly statements: number;
  readonly errors: number;
}

// int8 fits a double up to 2^53: sizes and ids stay below that, and JSON has no wider number.
pg.types.setTypeParser(20, Number);

const ANSWER_MARGIN_MS = 2_000;

export class Database implements Queryable {
  readonly #pool: pg.Pool;
  readonly url: string;
  #statements = 0;
  #errors = 0;

  constructor(options: DatabaseOptions) {
    this.url = options.url;
    const statementTimeoutMs = options.statementTimeoutMs ?? 30_000;
    this.#pool = new pg.Pool({
      connectionString: options.url,
      max: options.poolSize,
      connectionTimeoutMillis: options.acquireTimeoutMs ?? 3_000,
      statement_timeout: statementTimeoutMs,
      // The server's own limit does not help when the server, or the way to it, is what hangs.
      query_timeout: statementTimeoutMs + ANSWER_MARGIN_MS,
      keepAliveInitialDelayMillis: 10_000,
      application_name: options.applicationName ?? "slipway",
      idleTimeoutMillis: 60_000,
      keepAlive: true,
    });
    this.#pool.on("error", (error) => options.onError?.(error));
  }

  async query<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []): Promise<pg.QueryResult<Row>> {
    this.#statements += 1;
    try {
      return await this.#pool.query<Row>(text, values as unknown[]);
    } catch (error) {
      throw this.#translate(error);
    }
  }

  /** Runs the work in one transaction; it is rolled back when the work throws. */
  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect().catch((error: unknown) => {
      throw this.#translate(error);
    });
    let broken: Error | undefined;
    // Without a listener a connection that dies between two statements would end the process.
    const onError = (error: Error): void => {
      broken = error;
    };
    client.on("error", onError);
    const tx: Queryable = {
      query: (text, values = []) => {
        this.#statements += 1;
        return client.query(text, values as unknown[]);
      },
    };
    try {
      await client.query("BEGIN");
      const result = await work(tx);
      await client.query("COMMIT");
      return result;
    } catch (error) {
      // Behind a statement that got no answer a ROLLBACK would wait as long again; closing the connection rolls back too.
      if (isUnanswered(error)) broken = error as Error;
      else {
        await client.query("ROLLBACK").catch((rollbackError: Error) => {
          broken = rollbackError;
        });
      }
      throw this.#translate(error);
    } finally {
      client.off("error", onError);
      client.release(broken);
    }
  }

  stats(): DatabaseStats {
    const pool = this.#pool;
    return {
      total: pool.totalCount,
      idle: pool.idleCount,
      waiting: pool.waitingCount,
      statements: this.#statements,
      errors: this.#errors,
    };
  }

  async close(): Promise<void> {
    await this.#pool.end();
  }

  #translate(error: unknown): unknown {
    if (!isConnectionTrouble(error)) return error;
    this.#errors += 1;
    return new SlipwayError("DATABASE_UNAVAILABLE", { cause: error, retryAfterSeconds: 2 });
  }
}

const SOCKET_CODES = new Set(["ECONNREFUSED", "ECONNRESET", "EPIPE", "ETIMEDOUT", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENOENT"]);

function isConnectionTrouble(error: unknown): boolean {
  if (error instanceof SlipwayError || !(error instanceof Error)) return false;
  const code = (error as { code?: unknown }).code;
  if (typeof code === "string") {
    // Class 08: connection; 57P0x: shut down, crash, starting; 53300: too many connections; 25006: a read-only standby.
    return SOCKET_CODES.has(code) || code.startsWith("08") || code.startsWith("57P") || code === "53300" || code === "25006";
  }
  if (isUnanswered(error)) return true;
  // pg reports lost and refused connections without a code; these texts are its only mark.
  return /connection terminated|timeout exceeded when trying to connect|client was closed|not queryable/i.test(error.message);
}

function isUnanswered(error: unknown): boolean {
  return error instanceof Error && error.message === "Query read timeout";
}

/** SQLSTATE of a pg error, for guards on unique and foreign keys. */
export function sqlState(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  return typeof code === "string" ? code : undefined;
}

export const UNIQUE_VIOLATION = "23505";
export const FOREIGN_KEY_VIOLATION = "23503";
/** Of keys with ON DELETE RESTRICT. */
export const RESTRICT_VIOLATION = "23001";
