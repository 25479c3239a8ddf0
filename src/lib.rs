//! Heartbeat watches small servers by their heartbeats and notifies people: `hbd` is the daemon,
//! `hbc` the agent on a watched host.
//!
//! # How it works
//!
//! A feature (such as `heartbeat` or `backup`) decides that something happened and produces an
//! [`event::Event`]. It hands that, together with the rows that changed, to the courier of `notify`
//! as one [`store::Change`]: both are on disk in one transaction before anything is sent. The
//! courier queues one delivery for each channel; workers make the attempts. Features do not know
//! channels, and channels do not know features. `tests/architecture.rs` enforces which module may
//! know which; a file whose head says `Pure.` decides without touching a clock, a socket, a file, a
//! thread or the log.
//!
//! # The map
//!
//! Vocabulary, which every module shares:
//!
//! - [`event`]: what can happen, which event opens and which closes an incident, title and text.
//! - [`view`]: the API model: hosts, channels, alerts, history, as JSON, the status page and the
//!   commands show them.
//! - [`clock`], [`duration`]: wall clock and monotonic clock, durations as text.
//! - [`address`], [`host_pattern`], [`btree`], [`escape`], [`secret`], [`problem`], [`token_bucket`],
//!   [`version`]: host names and URLs, patterns of host names, maps from iterators, escaping, texts that
//!   cannot be printed, errors of a configuration, a rate limit, the version.
//!
//! Configuration:
//!
//! - [`config`]: `heartbeat.yaml` as a whole. Each feature reads its own section in its `settings.rs`.
//! - [`config_file`]: YAML with line numbers, all problems at once, suggestions for unknown keys.
//!
//! Features:
//!
//! - [`heartbeat`]: the monitor: datagrams, hosts, connections, metrics, thresholds.
//! - [`notify`]: routing, outbox, courier, channels: from an event to a delivered message.
//! - [`backup`]: a backup alert, what Redis and restic say about it, and the report.
//! - [`agent`]: what `hbc` collects and sends; `hbd` uses it for its own machine.
//!
//! Edges to the outside:
//!
//! - [`http`]: the HTTP server: strict reading of requests, routes, API, status page, `/metrics`.
//! - [`store`]: the state on disk (redb), tables and transactions.
//! - [`redis_client`]: what all that speak to a Redis have in common: addresses, words for errors.
//! - [`process`], [`descriptors`], [`thread`], [`deadline`], [`tls`], [`memory`], [`name_service`]: child
//!   processes and what they get, interruptible waiting and semaphores, sockets with a deadline for the
//!   whole exchange, trusted certificates, malloc, how a static build looks names up.
//! - [`daemon`]: starts everything in order, reloads, stops; [`logger`] and [`systemd`] are its log
//!   and its service manager.
//! - [`cli`]: the commands of `hbd`, one file each (`run` is [`daemon`]).
//!
//! Optional features, known only to `config`, `daemon` and `cli`:
//!
//! - [`history`]: availability and metrics over time, and the event log.
//! - [`cluster`]: several hbd as one service: who leads, over a Redis that they share.
//! - [`dyndns`]: DNS records that follow the addresses of hosts.
//! - `http::page` (the status page), `http::front::certificate` (HTTPS), `agent::exec` (jobs),
//!   `agent::plugins` (the operator's own metrics).
//!
//! # Where do I change X
//!
//! Paths are below `src`.
//!
//! | I want to change | go to |
//! |---|---|
//! | a key of the configuration | `settings.rs` of its feature; a new section also in `config.rs` |
//! | a field of a datagram | `heartbeat/datagram.rs` (read), `heartbeat/host/mod.rs` (applied), `heartbeat/encode.rs` (written), `agent/beat/scheduler.rs`, `agent/send.rs` (sent) |
//! | the text beside a metric | `heartbeat/datagram/texts.rs` (read), `heartbeat/metric.rs` (kept), `agent/collect/units.rs`, `agent/plugins/run.rs`, `agent/exec/words.rs` (sent) |
//! | what is told of a job that failed | `heartbeat/job.rs`, `agent/exec/reporter.rs` (sent) |
//! | which pattern under `hosts` is meant by a name, and how many hosts may come by patterns | `host_pattern.rs`, `heartbeat/fleet/patterns.rs` |
//! | which files a configuration is made of (`include`), and where a problem stands | `config_file/include.rs`, `config_file/sources.rs` |
//! | from which address an answer leaves | `heartbeat/packet_info.rs` |
//! | what a node of a cluster keeps that does not lead, and how it is merged; which nodes hear a host, and what follows from their being gone | `heartbeat/last_beats.rs`, `heartbeat/fleet/relayed.rs`; `heartbeat/blindness.rs`, `heartbeat/fleet/receivers.rs` |
//! | when a host is overdue, and after a restart | `heartbeat/connection.rs`, `heartbeat/host/mod.rs` |
//! | when a threshold fires; the built-in sets of limits, such as `default` | `heartbeat/threshold.rs` |
//! | how many events a host may cause, and what is told of those that are refused | `heartbeat/event_limits.rs`; its share of what waits: `notify/outbox/shares.rs` |
//! | an event kind: its name, level, subject, incident, title, details | `event/kind.rs` |
//! | reminders: of thresholds; of hosts that stay silent | `heartbeat/renotify.rs`; `notify/outbox/reminders.rs` |
//! | what is said of a host whose datagrams are refused | `heartbeat/refused.rs`, in which words: `event/refused.rs` |
//! | what a host with another name takes over (`was`) | `daemon/takeover.rs` |
//! | how a metric, its value and its limit are worded, for messages and the page | `event/metric.rs` |
//! | where a message links to, and which other hosts it names to which channel | `notify/outbox/messages.rs` |
//! | who is notified | `notify/routing.rs` |
//! | what is held back, why, and when it comes out; maintenance windows | `notify/calm/`; how that meets the outbox: `notify/courier/overlay.rs` |
//! | acknowledgements | `notify/outbox/acknowledge.rs` |
//! | connections of one host that are told in one message | `notify/outbox/together.rs`, `heartbeat/fleet/mod.rs` |
//! | order, retries, digests of deliveries | `notify/outbox/queue.rs`, `notify/outbox/results.rs`, `notify/outbox/digest.rs` |
//! | what is told of messages that were given up | `notify/outbox/given_up.rs`; in which words: `event/given_up.rs` |
//! | what becomes of what waits for a channel or recipient that is gone | `notify/outbox/succession.rs` |
//! | a channel: its API, its retry delays and rate limit | `notify/channel/mattermost.rs`, `notify/channel/pushover.rs`, `notify/channel/signal/`, `notify/channel/email/` |
//! | a new channel | one file in `notify/channel/`, its arms in `notify/channel/mod.rs`, the list of features in `cli/mod.rs` |
//! | which SMTP reply is final, which is tried again | `notify/channel/email/diagnosis.rs` |
//! | what a mail looks like | `notify/channel/email/message.rs` |
//! | which alerts are about backups, and which wait and join | `backup/alert.rs`, `backup/queue.rs` |
//! | when a backup is told, told again, and told as over | `backup/plan_tracker.rs`; in which words: `backup/notice.rs` |
//! | what is not awaited because a plan was changed | `backup/plan_changes.rs` |
//! | when a plan is looked at without an alert | `backup/look_schedule.rs` |
//! | what of an alert is read, and leniently: its JSON, its start, its annotations | `backup/alert_json.rs`, `backup/lenient_json.rs`, `backup/alert_start.rs`, `backup/annotations.rs` |
//! | the outcome of a backup: SUCCESS, PARTIAL, FAILED ... | `backup/outcome.rs` |
//! | which run is due, what is pending and what is missing | `backup/schedule/`, `backup/plan.rs` |
//! | what the report of a backup says, PARTIAL or other | `backup/report.rs` |
//! | the daily summary of backups: what it says, and when it is sent | `backup/plan_summary.rs`, `notify/summary_times.rs`, `daemon/summary.rs` |
//! | what nodes of a cluster hear from each other, at once and without a promise | `cluster/relay.rs`, `cluster/subscriber.rs`, `cluster/relay_format.rs` |
//! | what a node gives to the one that leads, and how that is handled once | `cluster/deposits.rs`, `cluster/inbox.rs`, `daemon/inbox.rs` |
//! | the words for an error of Redis | `redis_client/words.rs`, and its callers' own |
//! | when a node of a cluster leads, and until when it may notify | `cluster/lease_state.rs`, `cluster/lease_thread.rs` |
//! | what the Redis of a cluster must be | `cluster/requirements.rs` |
//! | what is read from Redis, what from restic | `backup/plan_reader.rs`, `backup/redis_layout.rs`, `backup/repo_check.rs` |
//! | what restic's words mean; how it is run, and how many at a time | `backup/restic_output.rs`; `backup/repository.rs`, `backup/restic_permits.rs` |
//! | a route of HTTP, its parameters, its answer | `http/routes.rs`, `http/query.rs`, `http/api.rs` |
//! | who may call a route, such as `/-/reload` | `http/api.rs` (which route needs what), `http/auth.rs` (token), `http/origin.rs` (other sites) |
//! | what is bounded in bytes, and what people are told when it is reached | `event/limit.rs`; hosts that are not configured: `heartbeat/fleet/unknown.rs`; alerts: `backup/queue.rs` |
//! | limits of HTTP: connections, how long they may be idle, sizes, deadlines | `http/front/limits.rs` |
//! | a metric of `/metrics` | `http/metrics.rs`; where it comes from: `http/service.rs`, `daemon/service.rs` |
//! | what is counted and logged of a webhook that is refused | `http/refusals.rs` |
//! | the status page | `http/page/` |
//! | what the API shows of hosts, channels, history | `view/mod.rs`, `view/history.rs` |
//! | what is on disk | `store/table.rs`; rows of hosts: `heartbeat/persistence.rs` |
//! | how long history is kept; how many bytes | `history/retention.rs`; `store/history_limit.rs` |
//! | what is done with a file of the store that is damaged, older, or another's | `store/engine.rs`; how one is read that redb refuses: `store/salvage.rs` |
//! | what is asked of tables that several daemons share, and when they are written anew | `store/shared.rs`, `store/shared_backend.rs` |
//! | how long a disk that hangs is waited for | `store/disk_thread.rs` |
//! | threads, and the order of start and stop | `daemon/mod.rs` |
//! | what a reload applies | `daemon/mod.rs`; what it says that has changed: `daemon/config_diff.rs` |
//! | which characters of others are shown; text in HTML and JSON | `escape.rs` |
//! | what a program that is started is given: environment, directory, descriptors | `process.rs` |
//! | a command of `hbd` | one file in `cli/`, its line in `cli/mod.rs`, its help in `cli/help.rs` |
//! | a command or an option of `hbc` | `agent/cli.rs`, its help in `agent/help.rs` |
//! | what an agent measures | `agent/collect/` |
//! | when an agent sends, and over which connection | `agent/beat/scheduler.rs`, `agent/beat/session.rs` |

pub mod address;
pub mod agent;
pub mod backup;
pub mod btree;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod config_file;
pub mod daemon;
pub mod deadline;
pub mod descriptors;
pub mod duration;
pub mod dyndns;
pub mod escape;
pub mod event;
pub mod heartbeat;
pub mod history;
pub mod host_pattern;
pub mod http;
pub mod logger;
pub mod memory;
pub mod name_service;
pub mod notify;
pub mod problem;
pub mod process;
pub mod redis_client;
pub mod secret;
pub mod store;
pub mod systemd;
pub mod thread;
pub mod tls;
pub mod token_bucket;
pub mod version;
pub mod view;

pub use config::Config;
pub use notify::notifier::Notifier;
