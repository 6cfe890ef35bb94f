/** How much history each vendor keeps, from the settings. Pure. */
import { vendors } from "./status.ts";

export type VendorChoice = { readonly only: readonly string[] } | { readonly except: readonly string[] };

export interface Kept {
  /** Ended executions kept per vendor and vendor id. */
  readonly keep: number;
  /** Ended longer ago than this: removed, whatever the count. */
  readonly days: number;
}

export interface VendorKept extends Kept {
  readonly vendor: string;
}

export interface KeptSettings {
  readonly replication: Kept;
  /** Of each vendor that is not named. */
  readonly others: Kept;
  readonly named: readonly VendorKept[];
}

/** `WARM_UP=50/7`: the count, then the days. Null for anything else. */
export function parseVendorKept(text: string): VendorKept | null {
  const [, vendor, keep, days] = /^([A-Z][A-Z0-9_]{0,63})=([1-9]\d{0,8})\/([1-9]\d{0,4})$/.exec(text.trim()) ?? [];
  return vendor === undefined ? null : { vendor, keep: Number(keep), days: Number(days) };
}

/** What is wrong with the list, one sentence each. */
export function findKeptProblems(texts: readonly string[]): string[] {
  const seen = new Set<string>();
  return texts.flatMap((text) => {
    const kept = parseVendorKept(text);
    if (kept === null) return [`expected <VENDOR>=<count>/<days> such as WARM_UP=50/7, found "${text}"`];
    if (kept.vendor === vendors.replication) return [`${kept.vendor} has keys of its own, SLIPWAY_REPLICATION_KEEP_EXECUTIONS and _DAYS`];
    if (seen.has(kept.vendor)) return [`${kept.vendor} is given twice`];
    seen.add(kept.vendor);
    return [];
  });
}

/** Every vendor is in exactly one of the rules. */
export function retentionRules({ replication, others, named }: KeptSettings): (Kept & { readonly vendors: VendorChoice })[] {
  const apart = [vendors.replication, ...named.map(({ vendor }) => vendor)];
  return [
    { ...pick(replication), vendors: { only: [vendors.replication] } },
    ...named.map((kept) => ({ ...pick(kept), vendors: { only: [kept.vendor] } })),
    { ...pick(others), vendors: { except: apart } },
  ];
}

function pick({ keep, days }: Kept): Kept {
  return { keep, days };
}
