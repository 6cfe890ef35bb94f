/** What a batch has to tell, gathered and written now and then and at the end: figures of the run each second, items, known tags and lines of the log less often. */
import type { Logger } from "../../telemetry/logger.ts";
import type { LogLevel, LogStore } from "../../execution/log-store.ts";
import type { ItemReport, ItemStore } from "../item-store.ts";
import type { KnownDraft, KnownStore } from "../known-store.ts";
import type { RunFigures, RunStore } from "../run-store.ts";

export interface ReporterOptions {
  readonly executionId: number;
  readonly items: ItemStore;
  readonly known: KnownStore;
  readonly runs: Pick<RunStore, "addFigures">;
  readonly logs: LogStore;
  readonly logger: Logger;
  /** With each tick: looks for a new speed. */
  readonly onTick: () => Promise<void>;
  /** Something was written that those who watch the run want to see. */
  readonly announce: () => void;
}

type Counted = "bytesTotal" | "bytesCopied" | "bytesMounted" | "bytesSkipped";

const TICK_MS = 1_000;
const TICKS_PER_FLUSH = 3;

export class Reporter {
  readonly #options: ReporterOptions;
  readonly #timer: NodeJS.Timeout;
  #reports: ItemReport[] = [];
  #known = new Map<number, KnownDraft[]>();
  #lines: { taskId: number | null; level: LogLevel; line: string }[] = [];
  #figures: Record<Counted, number> = noFigures();
  #writing: Promise<void> = Promise.resolve();
  #ticks = 0;

  constructor(options: ReporterOptions) {
    this.#options = options;
    this.#timer = setInterval(() => void this.#tick(), TICK_MS);
    this.#timer.unref();
  }

  item(report: ItemReport): void {
    this.#reports.push(report);
  }

  tag(registryId: number, draft: KnownDraft): void {
    const drafts = this.#known.get(registryId);
    if (drafts) drafts.push(draft);
    else this.#known.set(registryId, [draft]);
  }

  count(figure: Counted, bytes: number): void {
    this.#figures[figure] += bytes;
  }

  line(taskId: number | null, level: LogLevel, line: string): void {
    this.#lines.push({ taskId, level, line });
  }

  /** Throws what the database says: what is not written must be done again. */
  async flush(): Promise<void> {
    const turn = this.#writing.then(() => this.#write());
    this.#writing = turn.catch(() => undefined);
    await turn;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.flush();
  }

  async #tick(): Promise<void> {
    const { executionId, logger, onTick } = this.#options;
    this.#ticks += 1;
    try {
      await Promise.all([onTick(), this.#ticks % TICKS_PER_FLUSH === 0 ? this.flush() : this.#writeFigures()]);
    } catch (error) {
      logger.warn({ error, executionId }, "the progress of a copy could not be written");
    }
  }

  async #writeFigures(): Promise<void> {
    const figures = this.#figures;
    if (Object.values(figures).every((bytes) => bytes === 0)) return;
    this.#figures = noFigures();
    await this.#options.runs.addFigures(this.#options.executionId, figures satisfies RunFigures);
    this.#options.announce();
  }

  async #write(): Promise<void> {
    const { executionId, items, known, logs } = this.#options;
    const reports = this.#reports;
    const tags = this.#known;
    const lines = this.#lines;
    this.#reports = [];
    this.#known = new Map();
    this.#lines = [];
    try {
      await Promise.all([
        items.report(reports),
        ...[...tags].map(([registryId, drafts]) => known.record(registryId, drafts)),
        this.#writeFigures(),
        logs.append(executionId, lines),
      ]);
    } catch (error) {
      // Items say what was done; they are told again. Figures and lines may be told twice, so they are not.
      this.#reports.unshift(...reports);
      throw error;
    }
  }
}

function noFigures(): Record<Counted, number> {
  return { bytesTotal: 0, bytesCopied: 0, bytesMounted: 0, bytesSkipped: 0 };
}
