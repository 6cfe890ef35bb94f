/**
 * Decides which network addresses may be reached. The check is made on the address that is about to be connected to, after resolving and
 * without resolving again, so that a name cannot answer with one address for the check and another for the connection.
 */
import { lookup as systemLookup } from "node:dns";
import type { LookupAddress, LookupOptions } from "node:dns";
import { BlockList, isIP } from "node:net";
import { SlipwayError } from "../core/errors.ts";

/** Link-local, and the metadata services of clouds that are elsewhere. */
export const DEFAULT_DENY: readonly string[] = [
  "169.254.0.0/16",
  "fe80::/10",
  "fd00:ec2::254/128",
  "fd20:ce::254/128",
  "100.100.100.200/32",
];

/** What is not the public internet. */
export const PRIVATE_RANGES: readonly string[] = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "224.0.0.0/4",
  "240.0.0.0/4",
  "::/127",
  "fc00::/7",
  "fe80::/10",
  "fec0::/10",
  "ff00::/8",
];

const RESOLVE_MS = 5000;

export type AddressClass = "denied" | "private" | "public";
/** `operator`: all that is not denied. `public`: for what a public upstream itself names. */
export type Reach = "operator" | "public";

export type Resolver = (hostname: string, callback: (error: Error | null, addresses: LookupAddress[]) => void) => void;

export interface AddressGuardOptions {
  readonly deny?: readonly string[] | undefined;
  readonly privateRanges?: readonly string[] | undefined;
  readonly resolver?: Resolver | undefined;
}

function blockList(ranges: readonly string[]): BlockList {
  const list = new BlockList();
  for (const range of ranges) {
    const [address = "", bits] = range.trim().split("/");
    const family = isIP(address);
    const prefix = bits === undefined ? (family === 6 ? 128 : 32) : Number(bits);
    if (family === 0 || !Number.isInteger(prefix)) {
      throw new SlipwayError("CONFIG_INVALID", { message: `not an address range: ${range.slice(0, 64)}` });
    }
    list.addSubnet(address, prefix, family === 6 ? "ipv6" : "ipv4");
  }
  return list;
}

function groupsOf(address: string): number[] {
  // The URL parser brings every spelling of an IPv6 address to one form.
  const text = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [head = "", tail] = text.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : 8 - left.length - right.length;
  return [...left, ...Array.from({ length: zeros }, () => "0"), ...right].map((group) => Number.parseInt(group, 16));
}

/** IPv4 addresses hidden in IPv6: mapped, compatible, translated (64:ff9b::/96 and ::ffff:0:0:0/96), 6to4, Teredo's server and client. */
function embeddedIpv4(address: string): string[] {
  const groups = groupsOf(address);
  const quad = (high: number | undefined, low: number | undefined, mask = 0): string => {
    const [a, b] = [(high ?? 0) ^ mask, (low ?? 0) ^ mask];
    return `${a >> 8}.${a & 255}.${b >> 8}.${b & 255}`;
  };
  const prefix = groups
    .slice(0, 6)
    .map((group) => group.toString(16))
    .join(":");
  if (prefix === "0:0:0:0:0:ffff" || prefix === "64:ff9b:0:0:0:0" || prefix === "0:0:0:0:ffff:0") return [quad(groups[6], groups[7])];
  if (prefix === "0:0:0:0:0:0" && (groups[6] !== 0 || (groups[7] ?? 0) > 1)) return [quad(groups[6], groups[7])];
  if (groups[0] === 0x2002) return [quad(groups[1], groups[2])];
  if (groups[0] === 0x2001 && groups[1] === 0) return [quad(groups[2], groups[3]), quad(groups[6], groups[7], 0xffff)];
  return [];
}

export class AddressGuard {
  readonly #deny: BlockList;
  readonly #private: BlockList;
  readonly #resolver: Resolver;

  constructor(options: AddressGuardOptions = {}) {
    this.#deny = blockList(options.deny ?? DEFAULT_DENY);
    this.#private = blockList(options.privateRanges ?? PRIVATE_RANGES);
    this.#resolver = options.resolver ?? ((hostname, callback) => systemLookup(hostname, { all: true }, callback));
  }

  classify(address: string): AddressClass {
    const plain = address.replace(/^\[|\]$/g, "").replace(/%.*$/, "");
    const family = isIP(plain);
    if (family === 0) return "denied";
    const spellings = family === 6 ? [plain, ...embeddedIpv4(plain)] : [plain];
    const inside = (list: BlockList): boolean => spellings.some((text) => list.check(text, isIP(text) === 6 ? "ipv6" : "ipv4"));
    if (inside(this.#deny)) return "denied";
    return inside(this.#private) ? "private" : "public";
  }

  allows(address: string, reach: Reach): boolean {
    const found = this.classify(address);
    return found === "public" || (found === "private" && reach === "operator");
  }

  resolve(hostname: string): Promise<LookupAddress[]> {
    const family = isIP(hostname);
    if (family !== 0) return Promise.resolve([{ address: hostname, family }]);
    return new Promise((resolve, reject) => {
      const late = Object.assign(new Error("the name was not resolved in time"), { code: "ETIMEDOUT" });
      const timer = setTimeout(() => reject(late), RESOLVE_MS);
      this.#resolver(hostname, (error, addresses) => {
        clearTimeout(timer);
        if (error) reject(error);
        else resolve(addresses);
      });
    });
  }

  /** Public as soon as one of its addresses is: an upstream does not become internal by adding an internal address to its name. */
  async classifyHost(hostname: string): Promise<"private" | "public"> {
    const addresses = await this.resolve(hostname.replace(/^\[|\]$/g, ""));
    return addresses.length > 0 && addresses.every((entry) => this.classify(entry.address) === "private") ? "private" : "public";
  }

  /** For net.connect: hands on only the addresses that may be reached. */
  lookup(reach: Reach) {
    return (
      hostname: string,
      options: LookupOptions,
      callback: (error: NodeJS.ErrnoException | null, address: string | LookupAddress[], family?: number) => void,
    ): void => {
      this.#resolver(hostname, (error, found) => {
        if (error) return callback(error, []);
        const wanted = options.family === 4 || options.family === 6 ? found.filter((entry) => entry.family === options.family) : found;
        const allowed = wanted.filter((entry) => this.allows(entry.address, reach));
        const first = allowed[0];
        if (!first) return callback(forbidden(hostname), []);
        return options.all ? callback(null, allowed) : callback(null, first.address, first.family);
      });
    };
  }
}

export function forbidden(hostname: string): SlipwayError {
  return new SlipwayError("UPSTREAM_FORBIDDEN_ADDRESS", { detail: { host: hostname.slice(0, 253) } });
}
