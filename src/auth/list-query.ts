/** Lists by condition, order and page, turned into SQL over a closed set of columns. */
import { SlipwayError } from "../core/errors.ts";

export type Filter =
  | { readonly key: string; readonly kind: "equals"; readonly value: string }
  | { readonly key: string; readonly kind: "contains"; readonly value: string }
  | { readonly key: string; readonly kind: "range"; readonly min: string | null; readonly max: string | null }
  | { readonly key: string; readonly kind: "beyond"; readonly above: string | null; readonly below: string | null }
  | { readonly key: string; readonly kind: "any" | "all"; readonly values: readonly string[] };

export interface ListQuery {
  readonly filters: readonly Filter[];
  readonly sort: readonly { readonly key: string; readonly descending: boolean }[];
  readonly page: number;
  readonly pageSize: number;
}

export interface Listed<Row> {
  readonly rows: readonly Row[];
  readonly total: number;
}

export interface Column {
  /** An expression of ours, never of the client. */
  readonly sql: string;
  readonly type: "text" | "number" | "time" | "boolean";
}

export type Columns = Readonly<Record<string, Column>>;

/** WHERE and ORDER BY with their parameters; keys that no column has are left out, as clients of Harbor expect. */
export class ListSql {
  readonly #columns: Columns;
  readonly #conditions: string[] = [];
  readonly values: unknown[] = [];

  constructor(columns: Columns) {
    this.#columns = columns;
  }

  /** Adds a condition of ours; `?` stands for the value. */
  where(sql: string, ...values: readonly unknown[]): this {
    let index = 0;
    this.#conditions.push(sql.replaceAll("?", () => this.#parameter(values[index++])));
    return this;
  }

  filter(filters: readonly Filter[]): this {
    for (const filter of filters) {
      const column = this.#columns[filter.key.toLowerCase()];
      if (column) this.#add(filter, column);
    }
    return this;
  }

  get whereSql(): string {
    return this.#conditions.length === 0 ? "" : `WHERE ${this.#conditions.join(" AND ")}`;
  }

  orderSql(sort: ListQuery["sort"], fallback: string): string {
    const parts = sort.flatMap(({ key, descending }) => {
      const column = this.#columns[key.toLowerCase()];
      return column ? [`${column.sql}${descending ? " DESC" : ""}`] : [];
    });
    return `ORDER BY ${parts.length === 0 ? fallback : [...parts, fallback].join(", ")}`;
  }

  pageSql(query: Pick<ListQuery, "page" | "pageSize">): string {
    return `LIMIT ${this.#parameter(query.pageSize)} OFFSET ${this.#parameter((query.page - 1) * query.pageSize)}`;
  }

  #add(filter: Filter, column: Column): void {
    switch (filter.kind) {
      case "equals":
        this.where(`${column.sql} = ?`, typed(filter.value, column));
        break;
      case "contains":
        this.where(`${column.sql}::text ILIKE ?`, `%${filter.value.replace(/[\\%_]/g, "\\$&")}%`);
        break;
      case "range":
        if (filter.min !== null) this.where(`${column.sql} >= ?`, typed(filter.min, column));
        if (filter.max !== null) this.where(`${column.sql} <= ?`, typed(filter.max, column));
        break;
      case "beyond":
        if (filter.above !== null) this.where(`${column.sql} > ?`, typed(filter.above, column));
        if (filter.below !== null) this.where(`${column.sql} < ?`, typed(filter.below, column));
        break;
      case "any":
        this.where(
          `${column.sql} = ANY(?)`,
          filter.values.map((value) => typed(value, column)),
        );
        break;
      case "all":
        for (const value of filter.values) this.where(`${column.sql} = ?`, typed(value, column));
        break;
      default:
        filter satisfies never;
    }
  }

  #parameter(value: unknown): string {
    this.values.push(value);
    return `$${this.values.length}`;
  }
}

function typed(value: string, column: Column): unknown {
  const wrong = (): SlipwayError => new SlipwayError("BAD_REQUEST", { message: `not a ${column.type}: ${value}` });
  switch (column.type) {
    case "text":
      return value;
    case "number":
      if (!/^-?\d{1,15}$/.test(value)) throw wrong();
      return Number(value);
    case "time": {
      const match = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?)?$/.exec(value);
      const time = match ? new Date(value.length === 10 || value.endsWith("Z") ? value : `${value.replace(" ", "T")}Z`) : null;
      if (time === null || Number.isNaN(time.getTime())) throw wrong();
      return time;
    }
    case "boolean":
      if (value === "true" || value === "1") return true;
      if (value === "false" || value === "0") return false;
      throw wrong();
    default:
      return column.type satisfies never;
  }
}
