/**
 * Under which address the client reached us, and from where. Forwarding headers are believed only when the peer is a trusted proxy: anybody
 * else could name a realm of their own in our challenges or hide behind a foreign address.
 */
import type { IncomingMessage } from "node:http";
import { BlockList, isIP } from "node:net";
import type { Socket } from "node:net";
import { SlipwayError } from "../../src/core/errors.ts";

export interface ClientAddressOptions {
  /** The address that clients use, without a trailing slash; null: by the request's own headers. */
  readonly externalUrl: string | null;
  /** Addresses and networks in CIDR form. */
  readonly trustedProxies: readonly string[];
}

export interface ClientAddresses {
  /** Scheme and authority, without a trailing slash. */
  externalUrl(req: IncomingMessage): string;
  remoteAddress(req: IncomingMessage): string;
  /** Whether the host is one under which clients reach us. */
  isOwnHost(req: IncomingMessage, host: string): boolean;
}

const AUTHORITY = /^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?$/;

export function createClientAddresses(options: ClientAddressOptions): ClientAddresses {
  const trusted = trustedList(options.trustedProxies);
  const fixed = options.externalUrl === null ? null : options.externalUrl.replace(/\/+$/, "");
  const fixedHost = fixed === null ? null : new URL(fixed).host;

  function isTrusted(address: string): boolean {
    const plain = plainAddress(address);
    const family = isIP(plain);
    return family !== 0 && trusted.check(plain, family === 6 ? "ipv6" : "ipv4");
  }

  // Asking costs a system call and a search; a connection keeps its peer.
  const peers = new WeakMap<Socket, { address: string; trusted: boolean }>();
  function peerOf(socket: Socket): { address: string; trusted: boolean } {
    let peer = peers.get(socket);
    if (peer === undefined) {
      const address = plainAddress(socket.remoteAddress ?? "");
      peer = { address, trusted: isTrusted(address) };
      peers.set(socket, peer);
    }
    return peer;
  }

  function authority(req: IncomingMessage): string {
    const forwarded = peerOf(req.socket).trusted ? lastItem(req.headers["x-forwarded-host"]) : undefined;
    const host = forwarded ?? req.headers.host;
    if (host !== undefined && AUTHORITY.test(host)) return host;
    const local = req.socket.localAddress ?? "localhost";
    return `${isIP(local) === 6 ? `[${local}]` : local}:${req.socket.localPort ?? 0}`;
  }

  function scheme(req: IncomingMessage): string {
    if (peerOf(req.socket).trusted) {
      const forwarded = lastItem(req.headers["x-forwarded-proto"])?.toLowerCase();
      if (forwarded === "http" || forwarded === "https") return forwarded;
    }
    return "encrypted" in req.socket && req.socket.encrypted === true ? "https" : "http";
  }

  return {
    externalUrl: (req) => fixed ?? `${scheme(req)}://${authority(req)}`,
    isOwnHost: (req, host) => host === (fixedHost ?? authority(req)),
    remoteAddress(req) {
      const peer = peerOf(req.socket);
      if (!peer.trusted) return peer.address;
      let { address } = peer;
      // From the right: each entry was written by the hop behind it, and counts as long as that hop is trusted.
      const hops = listItems(req.headers["x-forwarded-for"]);
      for (let hop = hops.pop(); hop !== undefined; hop = hops.pop()) {
        const plain = plainAddress(hop);
        if (isIP(plain) === 0) break;
        address = plain;
        if (!isTrusted(plain)) break;
      }
      return address;
    },
  };
}

function trustedList(entries: readonly string[]): BlockList {
  const list = new BlockList();
  for (const entry of entries) {
    const [address = "", prefix] = entry.trim().split("/");
    const family = isIP(address);
    const bits = prefix === undefined ? (family === 6 ? 128 : 32) : Number(prefix);
    if (family === 0 || !Number.isInteger(bits) || bits < 0 || bits > (family === 6 ? 128 : 32)) {
      throw new SlipwayError("CONFIG_INVALID", { message: `trusted proxy is neither an address nor a network: ${entry}` });
    }
    list.addSubnet(address, bits, family === 6 ? "ipv6" : "ipv4");
  }
  return list;
}

/** An IPv4 peer of a dual-stack socket shows up as ::ffff:a.b.c.d. */
function plainAddress(address: string): string {
  return address.startsWith("::ffff:") && isIP(address.slice(7)) === 4 ? address.slice(7) : address;
}

function listItems(value: string | string[] | undefined): string[] {
  if (value === undefined) return [];
  const joined = typeof value === "string" ? value : value.join(",");
  return joined
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}

function lastItem(value: string | string[] | undefined): string | undefined {
  return listItems(value).at(-1);
}
