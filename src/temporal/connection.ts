/**
 * The client's way to Temporal: connected when first used, reconnecting by itself, and never without a deadline. Callers see
 * TEMPORAL_UNAVAILABLE when the service is away, so that the rest of Slipway can go on without it.
 */
import {
  Client,
  Connection,
  defaultGrpcRetryOptions,
  isGrpcServiceError,
  makeGrpcRetryInterceptor,
  NamespaceNotFoundError,
  ScheduleAlreadyRunning,
  ScheduleNotFoundError,
  WorkflowExecutionAlreadyStartedError,
  WorkflowNotFoundError,
} from "@temporalio/client";
import type { ConnectionOptions } from "@temporalio/client";
import { isSlipwayError, SlipwayError } from "../core/errors.ts";

export interface TemporalConnectionOptions {
  readonly address: string;
  readonly namespace: string;
  /** True for TLS with the system's certificates. */
  readonly tls?: boolean;
  readonly apiKey?: string;
  /** Longest time of one call with all its retries. */
  readonly callTimeoutMs?: number;
}

export interface CallOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

const CALL_TIMEOUT_MS = 5_000;
const RETRY_AFTER_SECONDS = 5;

/** gRPC status codes; the enumeration itself is in a package that is not ours. */
const grpcCodes = { cancelled: 1, deadlineExceeded: 4, notFound: 5, alreadyExists: 6, resourceExhausted: 8, unavailable: 14 } as const;

export class TemporalConnection {
  readonly address: string;
  readonly namespace: string;
  readonly #callTimeoutMs: number;
  readonly #options: TemporalConnectionOptions;
  #open: { connection: Connection; client: Client } | null = null;
  readonly #closing = new AbortController();

  constructor(options: TemporalConnectionOptions) {
    this.address = options.address;
    this.namespace = options.namespace;
    this.#callTimeoutMs = options.callTimeoutMs ?? CALL_TIMEOUT_MS;
    this.#options = options;
  }

  /** Runs calls of the client under a deadline and translates their errors. */
  async call<T>(work: (client: Client, connection: Connection) => Promise<T>, options: CallOptions = {}): Promise<T> {
    const { connection, client } = this.#connect();
    const deadline = Date.now() + (options.timeoutMs ?? this.#callTimeoutMs);
    const run = (): Promise<T> => connection.withDeadline(deadline, () => work(client, connection));
    try {
      options.signal?.throwIfAborted();
      const running = options.signal ? connection.withAbortSignal(options.signal, run) : run();
      return await endedBy(this.#closing.signal, running);
    } catch (error) {
      if (options.signal?.aborted) throw options.signal.reason;
      throw translate(error);
    }
  }

  /** Throws TEMPORAL_UNAVAILABLE when the service does not answer, or does not know our namespace. */
  async check(options: CallOptions = {}): Promise<void> {
    await this.call((client) => client.workflowService.describeNamespace({ namespace: this.namespace }), {
      timeoutMs: 2_000,
      ...options,
    }).catch((error: unknown) => {
      if (!isSlipwayError(error, "NOT_FOUND")) throw error;
      throw new SlipwayError("TEMPORAL_UNAVAILABLE", { message: `the workflow service has no namespace ${this.namespace}`, cause: error });
    });
  }

  async close(): Promise<void> {
    this.#closing.abort(closedError());
    await this.#open?.connection.close();
    this.#open = null;
  }

  #connect(): { connection: Connection; client: Client } {
    this.#closing.signal.throwIfAborted();
    if (!this.#open) {
      const connection = Connection.lazy({
        address: this.address,
        // By default a lost server is looked for every two minutes only.
        interceptors: retryUntil(this.#closing.signal),
        channelArgs: { "grpc.initial_reconnect_backoff_ms": 250, "grpc.max_reconnect_backoff_ms": 2_000 },
        ...(this.#options.tls === undefined ? {} : { tls: this.#options.tls }),
        ...(this.#options.apiKey === undefined ? {} : { apiKey: this.#options.apiKey }),
      });
      this.#open = { connection, client: new Client({ connection, namespace: this.namespace }) };
    }
    return this.#open;
  }
}

type Interceptors = NonNullable<ConnectionOptions["interceptors"]>;

/**
 * The SDK's retries, whose timers outlive the connection: one that fires after the close would throw where nobody can catch it and end the process.
 */
function retryUntil(closing: AbortSignal): Interceptors {
  const guard: Interceptors[number] = (options, nextCall) => (closing.aborted ? silentCall() : nextCall(options)) as Call;
  return [makeGrpcRetryInterceptor(defaultGrpcRetryOptions()), guard];
}

type Call = ReturnType<Interceptors[number]>;

/** Whoever waited for this call was told of the close already. */
function silentCall(): Call {
  const nothing = (): void => undefined;
  return Object.assign(Object.create(null), {
    start: nothing,
    sendMessage: nothing,
    sendMessageWithContext: nothing,
    startRead: nothing,
    halfClose: nothing,
    cancelWithStatus: nothing,
    getPeer: () => "",
    getAuthContext: () => null,
  }) as Call;
}

function endedBy<T>(closing: AbortSignal, running: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const onClose = (): void => reject(closing.reason as Error);
    closing.addEventListener("abort", onClose, { once: true });
    running.then(resolve, reject).finally(() => closing.removeEventListener("abort", onClose));
  });
}

function closedError(): SlipwayError {
  return new SlipwayError("TEMPORAL_UNAVAILABLE", { message: "the connection to the workflow service is closed" });
}

/** Errors of the service as ours; what is neither is left as it is. */
function translate(error: unknown): unknown {
  if (error instanceof WorkflowExecutionAlreadyStartedError)
    return new SlipwayError("CONFLICT", { message: "a run is active", cause: error });
  const code = grpcCode(error);
  switch (code) {
    case grpcCodes.notFound:
      return new SlipwayError("NOT_FOUND", { cause: error });
    case grpcCodes.alreadyExists:
      return new SlipwayError("CONFLICT", { cause: error });
    case grpcCodes.cancelled:
    case grpcCodes.deadlineExceeded:
    case grpcCodes.resourceExhausted:
    case grpcCodes.unavailable:
      return new SlipwayError("TEMPORAL_UNAVAILABLE", { cause: error, retryAfterSeconds: RETRY_AFTER_SECONDS });
    default:
      if (NOT_FOUND_ERRORS.some((kind) => error instanceof kind)) return new SlipwayError("NOT_FOUND", { cause: error });
      if (error instanceof ScheduleAlreadyRunning) return new SlipwayError("CONFLICT", { cause: error });
      return error;
  }
}

const NOT_FOUND_ERRORS = [WorkflowNotFoundError, ScheduleNotFoundError, NamespaceNotFoundError] as const;

function grpcCode(error: unknown): number | undefined {
  for (let current: unknown = error, depth = 0; current instanceof Error && depth < 4; current = current.cause, depth += 1) {
    if (isGrpcServiceError(current)) return current.code;
  }
  return undefined;
}
