/** Builds authentication: the one place where its parts meet. */
import type { Clock } from "../core/clock.ts";
import type { Database } from "../db/pool.ts";
import type { Logger } from "../telemetry/logger.ts";
import { Accounts } from "./accounts.ts";
import { Authenticator } from "./authenticator.ts";
import { Decisions } from "./decisions.ts";
import type { RegistryMode } from "./decisions.ts";
import type { Encryption } from "./encryption.ts";
import type { Invalidations } from "./invalidations.ts";
import { LoginThrottle } from "./login-throttle.ts";
import { MemberStore } from "./members.ts";
import { Passwords } from "./passwords.ts";
import type { RegistryAuth } from "./principal.ts";
import { ProjectList } from "./project-list.ts";
import { RefreshTokens } from "./refresh-tokens.ts";
import { RobotSecrets } from "./robot-secrets.ts";
import { RobotStore } from "./robots.ts";
import { SigningKeys } from "./signing-keys.ts";
import { TokenService } from "./token-service.ts";
import { Tokens } from "./tokens.ts";
import { UserStore } from "./users.ts";

export interface AuthConfig {
  readonly mode: RegistryMode;
  readonly tokenTtlSeconds: number;
  readonly staleOnDbErrorMs: number;
  readonly createProjectsOnPush: boolean;
  /** Only system administrators create projects by REST. */
  readonly adminOnly: boolean;
  readonly robotPrefix?: string;
  readonly basicTtlMs?: number;
  readonly maxAccounts?: number;
  readonly maxRoles?: number;
  readonly keyRefreshMs?: number;
  readonly keyRotateAfterMs?: number;
}

export interface AuthOptions {
  readonly database: Database;
  readonly bus: Invalidations;
  readonly config: AuthConfig;
  readonly encryption: Encryption;
  readonly logger: Logger;
  readonly clock: Clock;
}

export const DEFAULT_ROBOT_PREFIX = "robot$";
/** Invalidations are the rule; this catches what no invalidation can tell, such as a row changed by hand. */
const FRESH_MS = 60_000;

export interface Auth {
  readonly registry: RegistryAuth;
  readonly authenticator: Authenticator;
  readonly decisions: Decisions;
  readonly tokenService: TokenService;
  readonly tokens: Tokens;
  readonly signingKeys: SigningKeys;
  readonly users: UserStore;
  readonly members: MemberStore;
  readonly robots: RobotStore;
  readonly robotSecrets: RobotSecrets;
  readonly passwords: Passwords;
  readonly projectList: ProjectList;
  readonly robotPrefix: string;
  readonly config: AuthConfig;
  stats(): AuthStats;
  close(): void;
}

export type AuthStats = ReturnType<typeof collectStats>;

export function createAuth(options: AuthOptions): Auth {
  const { database, bus, config, clock, logger } = options;
  const robotPrefix = config.robotPrefix ?? DEFAULT_ROBOT_PREFIX;
  const cache = { invalidations: bus, clock, freshMs: FRESH_MS, staleOnDbErrorMs: config.staleOnDbErrorMs };
  const passwords = new Passwords();
  const robotSecrets = new RobotSecrets(options.encryption, passwords);
  const accounts = new Accounts(database, robotPrefix, { ...cache, maxEntries: config.maxAccounts ?? 20_000 });
  const members = new MemberStore(database, bus);
  const decisions = new Decisions(accounts, members, {
    mode: config.mode,
    createProjectsOnPush: config.createProjectsOnPush,
    projectCreationAdminOnly: config.adminOnly,
    cache: { ...cache, maxEntries: config.maxRoles ?? 100_000 },
  });
  const signingKeys = createSigningKeys(options);
  const tokens = new Tokens(signingKeys, { clock, ttlSeconds: config.tokenTtlSeconds });
  const throttle = new LoginThrottle({ clock });
  const basicTtl = config.basicTtlMs === undefined ? {} : { basicTtlMs: config.basicTtlMs };
  const authenticator = new Authenticator({ accounts, passwords, robotSecrets, tokens, throttle, clock, logger, ...basicTtl });
  const refreshTokens = new RefreshTokens(database, clock);
  const parts = { accounts, decisions, authenticator, passwords, throttle, tokens };
  return {
    registry: createRegistryAuth(authenticator, decisions, config.mode),
    authenticator,
    decisions,
    tokenService: new TokenService({ ...parts, refreshTokens, mode: config.mode, clock }),
    tokens,
    signingKeys,
    users: new UserStore(database, bus),
    members,
    robots: new RobotStore(database, bus),
    robotSecrets,
    passwords,
    projectList: new ProjectList(database),
    robotPrefix,
    config,
    stats: () => collectStats(parts),
    close() {
      for (const part of [signingKeys, accounts, decisions]) part.close();
    },
  };
}

function createSigningKeys({ database, encryption, clock, logger, config }: AuthOptions): SigningKeys {
  return new SigningKeys({
    database,
    encryption,
    clock,
    logger,
    tokenTtlMs: config.tokenTtlSeconds * 1000,
    ...(config.keyRefreshMs === undefined ? {} : { refreshMs: config.keyRefreshMs }),
    ...(config.keyRotateAfterMs === undefined ? {} : { rotateAfterMs: config.keyRotateAfterMs }),
  });
}

function createRegistryAuth(authenticator: Authenticator, decisions: Decisions, mode: RegistryMode): RegistryAuth {
  return {
    mode,
    peekPrincipal: (authorization) => authenticator.peek(authorization),
    authenticate: (authorization, origin, signal) => authenticator.authenticate(authorization, origin, signal),
    peekDecision: (principal, project, action) => decisions.peek(principal, project, action),
    decide: (principal, project, action) => decisions.decide(principal, project, action),
    mayListCatalog: (principal) => decisions.mayListCatalog(principal),
    mayCreateProject: (principal) => decisions.mayCreateProjectOnPush(principal),
  };
}

function collectStats(parts: {
  accounts: Accounts;
  decisions: Decisions;
  authenticator: Authenticator;
  passwords: Passwords;
  throttle: LoginThrottle;
  tokens: Tokens;
}) {
  return {
    accounts: parts.accounts.stats(),
    roles: parts.decisions.stats(),
    logins: parts.authenticator.stats(),
    passwords: parts.passwords.stats(),
    throttle: parts.throttle.stats(),
    tokens: parts.tokens.stats(),
  };
}
