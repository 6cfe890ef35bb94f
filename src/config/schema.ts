/**
 * Every setting of Slipway. The nesting is that of the TOML file; `env` is the variable that wins over it. docs/configuration.md is
 * generated from this table.
 */
import { DRAIN_MODES } from "../execution/plan/old-marks.ts";
import { TAG_MODES } from "../proxy/plan/policy.ts";
import { DEFAULT_DENY } from "../upstream/address-guard.ts";
import { boolean, choice, int, list, number, optionalPath, optionalString, optionalUrl, path, string } from "./key.ts";
import type { Key } from "./key.ts";

export const ROLES = ["proxy", "api", "replication", "refresh", "tuf", "maintenance"] as const;
export type Role = (typeof ROLES)[number];

export const SCHEMA = {
  server: {
    port: int(5001, { env: "SLIPWAY_PORT", min: 0, max: 65535, doc: "Port of the registry and of the APIs." }),
    host: string("0.0.0.0", { env: "SLIPWAY_HOST", doc: "Address to listen on." }),
    external_url: optionalUrl({
      env: "SLIPWAY_EXTERNAL_URL",
      doc: "How clients reach Slipway. Unset: taken from the Host header, and from X-Forwarded-Proto when a trusted proxy sent it.",
    }),
    trusted_proxies: list([], {
      env: "SLIPWAY_TRUSTED_PROXIES",
      doc: "Addresses or CIDR ranges whose X-Forwarded-For and X-Forwarded-Proto are believed. Anybody else could invent them.",
    }),
    tls_cert: optionalPath({
      env: "SLIPWAY_TLS_CERT",
      doc: "PEM file of the certificate chain; read again when it changes. Needs tls_key.",
    }),
    tls_key: optionalPath({ env: "SLIPWAY_TLS_KEY", doc: "PEM file of the private key; read again when it changes. Needs tls_cert." }),
    proxy_processes: int(1, {
      env: "SLIPWAY_PROXY_PROCESSES",
      min: 1,
      max: 64,
      doc: "Processes that serve the registry on the same port. More than one pays when there are more than two cores.",
    }),
    drain_seconds: int(60, {
      env: "SLIPWAY_DRAIN_SECONDS",
      min: 0,
      max: 3600,
      unit: "s",
      doc: "How long running transfers may go on after SIGTERM. Keep it below the kill timeout of the orchestrator.",
    }),
    drain_notice_seconds: int(1, {
      env: "SLIPWAY_DRAIN_NOTICE_SECONDS",
      min: 0,
      max: 300,
      unit: "s",
      doc: "How long requests are still taken after SIGTERM while readiness fails already. Behind a load balancer: longer than its probe interval.",
    }),
    max_connections: int(20_000, {
      env: "SLIPWAY_MAX_CONNECTIONS",
      min: 10,
      doc: "Open client connections of one process; further ones are closed at once. Each costs about 20 KB, a slow reader up to 512 KB.",
    }),
    idle_body_seconds: int(60, {
      env: "SLIPWAY_IDLE_BODY_SECONDS",
      min: 1,
      unit: "s",
      doc: "A client that neither sends nor takes a byte for so long is disconnected. There is no limit on a whole transfer.",
    }),
  },
  data: {
    dir: path("./data", {
      env: "SLIPWAY_DATA_DIR",
      doc: "Folder of the embedded services, of blobs on local disk, and of keys that were made by Slipway itself.",
    }),
    encryption_key: optionalString({
      env: "SLIPWAY_ENCRYPTION_KEY",
      secret: true,
      doc: "Protects secrets at rest: 32 bytes as 64 hexadecimal digits or base64. Unset with the embedded database: made at the first start and kept in the data folder. Required with an external database.",
    }),
  },
  database: {
    url: optionalString({
      env: "SLIPWAY_DATABASE_URL",
      secret: true,
      doc: "Postgres to use, postgres://user:password@host/database. Unset: an embedded Postgres under the data folder.",
    }),
    pool_size: int(10, {
      env: "SLIPWAY_DATABASE_POOL",
      min: 2,
      max: 200,
      doc: "Connections of one process. All processes together must stay below max_connections of the server.",
    }),
  },
  redis: {
    url: optionalString({
      env: "REDIS_URL",
      secret: true,
      doc: "Redis for shared caches, queues and messages, redis:// or rediss://. Unset: Postgres does it, which suits up to a few processes.",
    }),
  },
  temporal: {
    address: optionalString({
      env: "TEMPORAL_ADDRESS",
      doc: "Temporal frontend, host:port. Unset: an embedded development server under the data folder.",
    }),
    namespace: string("default", { env: "TEMPORAL_NAMESPACE", doc: "Namespace for all workflows." }),
    port: int(7233, { env: "SLIPWAY_TEMPORAL_PORT", min: 0, max: 65535, doc: "Port of the embedded Temporal server." }),
    ui_port: int(8233, { env: "SLIPWAY_TEMPORAL_UI_PORT", min: 0, max: 65535, doc: "Port of its web interface." }),
    cli_path: optionalPath({
      env: "TEMPORAL_CLI_PATH",
      doc: "The `temporal` program to run. Unset: one on the PATH, the kept copy, or a download.",
    }),
    ui_url: optionalUrl({
      env: "SLIPWAY_TEMPORAL_UI_URL",
      doc: "Where people reach the Temporal UI; used for links. Unset: the embedded one.",
    }),
  },
  auth: {
    registry: choice(["open", "anonymous-pull", "required"], "anonymous-pull", {
      env: "SLIPWAY_REGISTRY_AUTH",
      doc: "Who needs to log in: `open` lets anyone pull and push; `anonymous-pull` lets anyone pull from public projects; `required` asks everybody.",
    }),
    admin_password: optionalString({
      env: "SLIPWAY_ADMIN_PASSWORD",
      secret: true,
      doc: "Password of `admin` at the first start. Unset: a random one is printed once and kept in the data folder. Later changes: `npm run slipway -- user password admin`.",
    }),
    create_projects_on_push: boolean(true, {
      env: "SLIPWAY_CREATE_PROJECTS_ON_PUSH",
      doc: "A push by a system administrator to an unknown project creates it (private).",
    }),
    token_ttl_seconds: int(1800, {
      env: "SLIPWAY_TOKEN_TTL_SECONDS",
      min: 60,
      max: 86_400,
      unit: "s",
      doc: "Life of registry tokens. A revoked right ends at once whatever the token says.",
    }),
    stale_on_db_error_seconds: int(300, {
      env: "SLIPWAY_AUTH_STALE_SECONDS",
      min: 0,
      max: 3600,
      unit: "s",
      doc: "How long known decisions, tokens and password checks hold while the database is away.",
    }),
    project_creation: choice(["everyone", "adminonly"], "everyone", {
      env: "SLIPWAY_PROJECT_CREATION",
      doc: "Who may create projects by REST.",
    }),
  },
  storage: {
    driver: choice(["fs", "s3"], "fs", {
      env: "SLIPWAY_STORAGE",
      doc: "`fs`: folder `storage` of the data folder (or storage.path); `s3`: any S3-compatible service.",
    }),
    path: optionalPath({
      env: "SLIPWAY_STORAGE_PATH",
      doc: "Folder of the blobs with the `fs` driver; shared between hosts it must be one file system.",
    }),
    s3_bucket: optionalString({ env: "SLIPWAY_S3_BUCKET", doc: "Bucket; must exist." }),
    s3_prefix: string("slipway/", { env: "SLIPWAY_S3_PREFIX", doc: "Put before every key." }),
    s3_region: string("us-east-1", { env: "SLIPWAY_S3_REGION", doc: "Region." }),
    s3_endpoint: optionalUrl({ env: "SLIPWAY_S3_ENDPOINT", doc: "Service address when it is not AWS." }),
    s3_path_style: boolean(false, {
      env: "SLIPWAY_S3_PATH_STYLE",
      doc: "Bucket in the path instead of in the host name; most services other than AWS want it.",
    }),
    s3_access_key_id: optionalString({
      env: "SLIPWAY_S3_ACCESS_KEY_ID",
      doc: "Unset: the usual chain of the AWS SDK (environment, profile, instance role).",
    }),
    s3_secret_access_key: optionalString({ env: "SLIPWAY_S3_SECRET_ACCESS_KEY", secret: true, doc: "Belongs to s3_access_key_id." }),
    s3_redirect: boolean(false, {
      env: "SLIPWAY_S3_REDIRECT",
      doc: "Send clients to S3 for large blobs instead of passing the bytes through. Clients must be able to reach the bucket.",
    }),
    s3_public_endpoint: optionalUrl({
      env: "SLIPWAY_S3_PUBLIC_ENDPOINT",
      doc: "Address of the bucket for clients, when it is another than ours.",
    }),
  },
  maintenance: {
    upload_expiry_hours: int(24, {
      env: "SLIPWAY_UPLOAD_EXPIRY_HOURS",
      min: 1,
      unit: "h",
      doc: "Uploads that nobody touched for so long are removed.",
    }),
    gc_grace_hours: int(24, {
      env: "SLIPWAY_GC_GRACE_HOURS",
      min: 1,
      unit: "h",
      doc: "Content without links is kept for so long; longer than the slowest push.",
    }),
    keep_executions: int(1_000, {
      env: "SLIPWAY_KEEP_EXECUTIONS",
      min: 1,
      doc: "Ended executions that are kept of each kind of work other than replication.",
    }),
    keep_days: int(90, {
      env: "SLIPWAY_KEEP_DAYS",
      min: 1,
      unit: "d",
      doc: "Those that ended longer ago are removed, however few there are.",
    }),
    keep_by_vendor: list([], {
      env: "SLIPWAY_KEEP_BY_VENDOR",
      doc: "The same for single kinds of work, as `<VENDOR>=<count>/<days>`: `WARM_UP=50/7` keeps 50 warm-ups of the last week. Kinds are GARBAGE_COLLECTION, CACHE_CLEANUP, WARM_UP, UPLOAD_EXPIRY, RECONCILE, EXECUTION_RECONCILE, TUF and whatever else an execution names.",
    }),
    gc_cron: string("0 3 * * *", { env: "SLIPWAY_GC_CRON", doc: "When garbage collection runs (five fields, UTC); `off` for never." }),
  },
  replication: {
    max_requests_per_host: int(64, {
      env: "SLIPWAY_REPLICATION_MAX_REQUESTS_PER_HOST",
      min: 1,
      max: 1024,
      doc: "Requests that one worker has under way to one registry at once, of each kind (small ones, blobs). It begins with less, grows while that goes well, and halves when the registry answers 429 or 503. Each further worker adds its own.",
    }),
    copy_slots: int(16, {
      env: "SLIPWAY_REPLICATION_COPY_SLOTS",
      min: 2,
      max: 500,
      doc: "Batches that one process with the role `replication` copies at once; no target gets more than half of them, nor more than 4, which keep its requests under way. More helps where there are many targets, and costs memory and connections.",
    }),
    event_delay_ms: int(2_000, {
      env: "SLIPWAY_REPLICATION_EVENT_DELAY_MS",
      min: 0,
      max: 3_600_000,
      unit: "ms",
      doc: "How long after a change of content the run of an event policy starts; what changes in the meantime is carried out by the same run.",
    }),
    event_retry_days: int(7, {
      env: "SLIPWAY_REPLICATION_EVENT_RETRY_DAYS",
      min: 0,
      max: 90,
      unit: "d",
      doc: "A change that could not be carried out, such as while its target is down, is tried again for so long.",
    }),
    max_watchers: int(200, {
      env: "SLIPWAY_REPLICATION_MAX_WATCHERS",
      min: 1,
      max: 10_000,
      doc: "Streams of run events that one process with the role `api` serves at once; more are answered 429. Each run is read once a second, however many watch it.",
    }),
    keep_executions: int(500, {
      env: "SLIPWAY_REPLICATION_KEEP_EXECUTIONS",
      min: 1,
      doc: "Ended executions that are kept of each policy, with their tasks, items and logs.",
    }),
    keep_days: int(90, {
      env: "SLIPWAY_REPLICATION_KEEP_DAYS",
      min: 1,
      unit: "d",
      doc: "Executions of replication that ended longer ago are removed, however few there are.",
    }),
  },
  cache: {
    memory_mb: int(96, { env: "SLIPWAY_CACHE_MB", min: 8, unit: "MB", doc: "Memory of one process for manifests, small blobs and names." }),
    max_gb: number(0, {
      env: "SLIPWAY_CACHE_MAX_GB",
      min: 0,
      unit: "GiB",
      doc: "Bytes that pulled-through content may take; what is over is evicted. 0 for no limit. Pushed content does not count.",
    }),
    eviction: choice(["lru", "lfu", "fifo"], "lru", {
      env: "SLIPWAY_CACHE_EVICTION",
      doc: "What goes first: `lru` what was not used for longest, `lfu` what was used least often, `fifo` what was fetched first.",
    }),
    retention_days: int(0, {
      env: "SLIPWAY_CACHE_RETENTION_DAYS",
      min: 0,
      max: 3650,
      unit: "d",
      doc: "Pulled-through content that nobody used for so long is removed; 0 for never.",
    }),
    warm_up: list([], {
      env: "SLIPWAY_CACHE_WARM_UP",
      doc: "References that are pulled ahead of anybody asking, such as docker.io/library/alpine:3.20.",
    }),
    warm_up_cron: string("off", { env: "SLIPWAY_CACHE_WARM_UP_CRON", doc: "When the list is pulled (five fields, UTC); `off` for never." }),
  },
  proxy: {
    default_upstreams: boolean(false, {
      env: "SLIPWAY_DEFAULT_UPSTREAMS",
      doc: "The first start makes public proxy projects for docker.io, ghcr.io, quay.io, registry.k8s.io, gcr.io, mcr.microsoft.com and public.ecr.aws. They can be changed and removed afterwards.",
    }),
    mirror: optionalString({
      env: "SLIPWAY_MIRROR",
      doc: "A host such as docker.io: plain names that no project here has are pulled from it, as the registry-mirrors of dockerd send them. It becomes an upstream if it is none.",
    }),
    upstream_deny: list(DEFAULT_DENY, {
      env: "SLIPWAY_UPSTREAM_DENY",
      doc: "Addresses and CIDR ranges that no upstream may have, whoever names it. The default: link-local addresses and the metadata services of clouds.",
    }),
    mode: choice(TAG_MODES, "revalidate", {
      env: "SLIPWAY_PROXY_MODE",
      doc: "When upstream is asked about a tag that is here: `revalidate` once it is older than tag_ttl_seconds, `always-check` each time, `local-first` never, `offline` never, not even for what is not here. Each proxy project may have its own.",
    }),
    tag_ttl_seconds: int(60, {
      env: "SLIPWAY_PROXY_TAG_TTL_SECONDS",
      min: 0,
      max: 31_536_000,
      unit: "s",
      doc: "A tag that upstream confirmed within this time is served without asking. Longer saves calls, shorter shows moved tags sooner.",
    }),
    max_stale_seconds: int(600, {
      env: "SLIPWAY_PROXY_MAX_STALE_SECONDS",
      min: 0,
      max: 31_536_000,
      unit: "s",
      doc: "Beyond tag_ttl_seconds a tag is served at once and checked behind for so long; an older one waits up to 2 s for the check.",
    }),
    negative_seconds: int(30, {
      env: "SLIPWAY_PROXY_NEGATIVE_SECONDS",
      min: 10,
      max: 60,
      unit: "s",
      doc: "How long it is believed that upstream does not have a tag, a manifest or a blob.",
    }),
    prefetch: boolean(true, {
      env: "SLIPWAY_PROXY_PREFETCH",
      doc: "Begin to fetch the layers of an image when its manifest is asked for.",
    }),
    max_fills: int(128, {
      env: "SLIPWAY_PROXY_MAX_FILLS",
      min: 1,
      max: 10_000,
      doc: "Blobs that one process fetches at the same time before prefetching waits.",
    }),
    finish_unread_percent: int(0, {
      env: "SLIPWAY_PROXY_FINISH_UNREAD_PERCENT",
      min: 0,
      max: 101,
      unit: "%",
      doc: "A blob that no client waits for any more is fetched to its end when so much of it is here; else the fetch stops, and goes on with the next client. 0: always to the end, so that the next client finds it; 101: never. What prefetching began is fetched in any case.",
    }),
  },
  refresh: {
    slots: int(64, {
      env: "SLIPWAY_REFRESH_SLOTS",
      min: 1,
      max: 1024,
      doc: "Parts into which executions are divided for refresh; an instance holds whole slots. The same for all processes. More than 64 pays beyond some 20 instances.",
    }),
    batch: int(1_000, {
      env: "SLIPWAY_REFRESH_BATCH",
      min: 1,
      max: 5_000,
      doc: "Executions that one statement refreshes at most. Larger batches need fewer statements, and hold more rows for longer.",
    }),
    sweep_seconds: int(30, {
      env: "SLIPWAY_REFRESH_SWEEP_SECONDS",
      min: 1,
      max: 3600,
      unit: "s",
      doc: "How often task changes are looked for whose mark was lost.",
    }),
    attempts: int(5, {
      env: "SLIPWAY_REFRESH_ATTEMPTS",
      min: 1,
      max: 100,
      doc: "An execution whose refresh fails so often is set aside and shown; `slipway refresh reconcile` tries it again.",
    }),
    old_marks: choice(DRAIN_MODES, "auto", {
      env: "SLIPWAY_REFRESH_OLD_MARKS",
      doc: "Marks that earlier designs left in Redis. `auto`: taken over when one of their sets is there, until nothing is left. `once`: also looks for keys of single executions, until nothing is left; then nothing is scanned any more. `keep`: goes on, every 30 s, while old writers live. `off`: left alone. One instance does it for all.",
    }),
    old_redis_url: optionalString({
      env: "SLIPWAY_REFRESH_OLD_REDIS_URL",
      secret: true,
      doc: "The Redis with these marks, such as redis://host:6379/2, when it is another than REDIS_URL, or another database of it.",
    }),
    instance_total: int(0, {
      env: "CORE_INSTANCE_TOTAL",
      min: 0,
      max: 1024,
      doc: "Fixed number of refreshing instances: slot s belongs to the instance s % total. 0: instances share the slots among those that live.",
    }),
    instance_id: optionalString({
      env: "CORE_INSTANCE_ID",
      doc: "Number of this instance from 0, or a name that ends with it, such as the pod name core-3. Unset: taken from the host name. Only with CORE_INSTANCE_TOTAL.",
    }),
  },
  log: {
    level: choice(["debug", "info", "warn", "error"], "info", { env: "SLIPWAY_LOG_LEVEL", doc: "Least level that is written." }),
    access: boolean(true, { env: "SLIPWAY_ACCESS_LOG", doc: "One line for each request, at level info." }),
    format: choice(["auto", "json", "pretty"], "auto", { env: "SLIPWAY_LOG_FORMAT", doc: "`auto`: pretty in a terminal, JSON elsewhere." }),
  },
} as const satisfies Record<string, Record<string, Key<unknown>>>;

type Values<Section> = { readonly [Name in keyof Section]: Section[Name] extends Key<infer Value> ? Value : never };

/** The settings as they were given or defaulted, in the shape of the file. */
export type Settings = { readonly [Name in keyof typeof SCHEMA]: Values<(typeof SCHEMA)[Name]> };
