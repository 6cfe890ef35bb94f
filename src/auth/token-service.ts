/** Issues tokens: what a principal asked for, cut down to what it may do now. */
import type { Clock } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import { isRepositoryName } from "../oci/names.ts";
import { isActive, refByKey } from "./accounts.ts";
import type { Account, Accounts } from "./accounts.ts";
import type { Authenticator } from "./authenticator.ts";
import { TOKEN_SERVICE } from "./challenge.ts";
import type { Decisions, RegistryMode } from "./decisions.ts";
import { ANONYMOUS } from "./principal.ts";
import type { Principal, ProjectIdentity, RequestOrigin } from "./principal.ts";
import type { RefreshTokens } from "./refresh-tokens.ts";
import { API_BOUND, CATALOG_BOUND, parseScopes, registryActionsOf } from "./scopes.ts";
import type { AccessEntry } from "./scopes.ts";
import type { IssuedToken, Tokens } from "./tokens.ts";

export interface TokenServiceParts {
  readonly accounts: Accounts;
  readonly authenticator: Authenticator;
  readonly decisions: Decisions;
  readonly tokens: Tokens;
  readonly refreshTokens: RefreshTokens;
  readonly mode: RegistryMode;
  readonly clock: Clock;
}

export interface TokenRequest {
  readonly service: string | undefined;
  readonly scopes: readonly string[];
  /** Also give a refresh token. */
  readonly offline: boolean;
  /** The project that requests for the repository go to; null when there is none. */
  readonly resolveProject: (repository: string) => Promise<ProjectIdentity | null>;
}

export interface TokenAnswer extends IssuedToken {
  readonly access: readonly AccessEntry[];
  readonly refreshToken: string | null;
}

export class TokenService {
  readonly #parts: TokenServiceParts;

  constructor(parts: TokenServiceParts) {
    this.#parts = parts;
  }

  /** With a Basic header, or none. A bearer token cannot buy a wider one. */
  async issueForHeader(authorization: string | undefined, request: TokenRequest, origin: RequestOrigin): Promise<TokenAnswer> {
    if (authorization === undefined) return await this.#issue(null, request);
    const principal = await this.#parts.authenticator.authenticate(authorization, origin);
    const account = principal.scopes === null ? this.#parts.accounts.accountOf(principal) : undefined;
    if (!account) throw new SlipwayError("UNAUTHORIZED", { message: "log in with name and password" });
    return await this.#issue(account, request);
  }

  async issueForPassword(
    login: { username: string; password: string },
    request: TokenRequest,
    origin: RequestOrigin,
  ): Promise<TokenAnswer> {
    return await this.#issue(await this.#parts.authenticator.login(login.username, login.password, origin), request);
  }

  async issueForRefreshToken(refreshToken: string, request: TokenRequest): Promise<TokenAnswer> {
    const found = await this.#parts.refreshTokens.find(refreshToken);
    const account = found === null ? null : await this.#parts.accounts.find(refByKey(found.principal));
    if (found === null || account === null || account.credentialVersion !== found.credentialVersion || !this.#isActive(account)) {
      throw new SlipwayError("UNAUTHORIZED", { message: "the refresh token is not valid" });
    }
    const answer = await this.#issue(account, { ...request, offline: false });
    return { ...answer, refreshToken };
  }

  async #issue(account: Account | null, request: TokenRequest): Promise<TokenAnswer> {
    const { accounts, tokens, mode, refreshTokens } = this.#parts;
    if (request.service !== undefined && request.service !== "" && request.service !== TOKEN_SERVICE) {
      throw new SlipwayError("BAD_REQUEST", { message: "the service is not known" });
    }
    const wanted = parseScopes(request.scopes);
    if (account === null && (mode === "required" || (mode !== "open" && wanted.length === 0))) throw new SlipwayError("UNAUTHORIZED");
    const principal = account === null ? ANONYMOUS : accounts.principalOf(account, null);
    const access: AccessEntry[] = [];
    for (const entry of wanted) access.push({ ...entry, actions: await this.#allowed(principal, entry, request.resolveProject) });
    const subject = account ?? { key: ANONYMOUS.key, name: "", credentialVersion: 0, expiresAt: null };
    const issued = await tokens.issue(subject, access);
    return { ...issued, access, refreshToken: request.offline && account !== null ? await refreshTokens.issue(account) : null };
  }

  async #allowed(
    principal: Principal,
    { type, name, actions }: AccessEntry,
    resolveProject: TokenRequest["resolveProject"],
  ): Promise<readonly string[]> {
    const { decisions } = this.#parts;
    if (`${type}:${name}` === CATALOG_BOUND) return decisions.mayListCatalog(principal) ? actions : [];
    if (`${type}:${name}` === API_BOUND) return principal.kind === "anonymous" ? [] : actions;
    if (type !== "repository" || !isRepositoryName(name)) return [];
    const asked = registryActionsOf(actions);
    const project = await resolveProject(name);
    // A project that does not exist yet: the push that the token is for creates it, or is refused then.
    if (project === null) return decisions.mayCreateProjectOnPush(principal) ? asked : [];
    const allowed = await Promise.all(asked.map((action) => decisions.decide(principal, project, action)));
    return asked.filter((_, index) => allowed[index]);
  }

  #isActive(account: Account): boolean {
    return isActive(account, this.#parts.clock.now());
  }
}
