// Every bound of the product in one place, each with its reason. At a bound we stop accepting or close one
// connection; nothing grows. docs/limits.md says the same for people; a test compares the two.

/// The bounds and defaults of tproxy. Computed and inlinable, so that a constant costs nothing across modules.
public enum Limits {
    // MARK: What the command line defaults to and allows

    /// `--max-initial-bytes`: a TLS ClientHello, or the header of any HTTP request that a browser sends, fits many times.
    @inlinable public static var initialBytesDefault: Int { 65_536 }
    /// A question is six times as long at worst (`\u0000` for a byte), and a router reads it in one piece.
    @inlinable public static var initialBytesMax: Int { 1_048_576 }
    /// `-w`: one event loop carries a core; more is for more cores.
    @inlinable public static var workersDefault: Int { 1 }
    /// The scoreboard has this many slots for one generation.
    @inlinable public static var workersMax: Int { 512 }
    /// `--worker-connections`, as the classic had it.
    @inlinable public static var workerConnectionsDefault: Int { 1000 }
    /// Two descriptors each: what Linux gives one process at most by default (`fs.nr_open`, 1,048,576).
    @inlinable public static var workerConnectionsMax: Int { 500_000 }
    /// `--backlog`, as the classic had it; the kernel cuts it to `net.core.somaxconn`.
    @inlinable public static var backlogDefault: Int { 2048 }
    /// More would wait longer than any client does.
    @inlinable public static var backlogMax: Int { 65_535 }
    /// `-b`: each listener is one descriptor in the arbiter and in every worker.
    @inlinable public static var listenersMax: Int { 64 }
    /// `-t`: how old a worker's heartbeat may get, as the classic had it.
    @inlinable public static var workerTimeoutMillisecondsDefault: Int { 30_000 }
    /// `--verdict-timeout`: from accept to verdict, all questions of a connection together.
    @inlinable public static var verdictTimeoutMillisecondsDefault: Int { 30_000 }
    /// `--router-timeout`: one question.
    @inlinable public static var routerTimeoutMillisecondsDefault: Int { 5_000 }
    /// `--connect-timeout`: one remote with its name, all its addresses and its handshake.
    @inlinable public static var connectTimeoutMillisecondsDefault: Int { 10_000 }
    /// `--graceful-timeout`: what TERM and INT leave to open connections, as the classic had it.
    @inlinable public static var gracefulTimeoutMillisecondsDefault: Int { 10_000 }
    /// `--silence`: a client that speaks first has spoken by then.
    @inlinable public static var silenceMillisecondsDefault: Int { 500 }
    /// No timeout is longer than a day: beyond that it is a mistake, and sums of milliseconds stay small.
    @inlinable public static var timeoutMillisecondsMax: Int { 86_400_000 }
    /// `--config` and `--log-config`: nobody writes more options, but somebody may name the wrong file.
    @inlinable public static var configFileBytesMax: Int { 1_048_576 }
    /// `--routers`: one decides in microseconds to milliseconds; more are for more cores, or for scripts that wait.
    @inlinable public static var routersDefault: Int { 1 }
    /// Each is a process of its own for every worker.
    @inlinable public static var routersMax: Int { 16 }
    /// `--canary` in hundredths of a percent: enough clients to see whether it works, few enough if it does not.
    @inlinable public static var canaryDefault: Int { 500 }
    /// `-n`: process titles have room for this much of it.
    @inlinable public static var nameBytesMax: Int { 64 }

    // MARK: The router

    /// Questions open at a router that says nothing else in `hello`.
    @inlinable public static var maxInFlightDefault: Int { 64 }
    /// What a router may ask for in `hello`: more would only move the queue into its socket.
    @inlinable public static var maxInFlightMax: Int { 65_536 }
    /// A longer line from a router is a broken framing: it is replaced.
    @inlinable public static var routerLineBytesMax: Int { 16_777_216 }
    /// Beside the bytes, which take six characters each at worst, a question has this much for everything else.
    @inlinable public static var questionOverheadBytes: Int { 65_536 }
    /// Questions waiting for a free place at the router; beyond that the worker stops accepting.
    @inlinable public static var waitingQuestionsMax: Int { 1024 }
    /// The same where several workers share the listeners: the others take those clients, whose routers may answer.
    @inlinable public static var waitingQuestionsSharedMax: Int { 64 }
    /// A router that has not answered `hello` by then has failed to start.
    @inlinable public static var helloTimeoutMilliseconds: Int { 10_000 }
    /// The first pause between two starts of a failing router; it doubles.
    @inlinable public static var routerBackoffMillisecondsMin: Int { 100 }
    /// The last pause between two starts of a failing router.
    @inlinable public static var routerBackoffMillisecondsMax: Int { 5_000 }
    /// So long a router that was told to go has for its open answers before TERM, and again before KILL.
    @inlinable public static var routerShutdownMilliseconds: Int { 5_000 }
    /// So long a new router has to live after a reload, unless it answers a question, before the old one is sent away.
    @inlinable public static var routerProvingMilliseconds: Int { 1_000 }
    /// Questions that a shadow has open, and answers that wait to be compared with its own.
    @inlinable public static var shadowQuestionsMax: Int { 256 }
    /// Routers of one worker that are starting or leaving beside those that decide: a bound for reloads in bursts.
    @inlinable public static var routersLeavingMax: Int { 7 }
    /// Lines in a row that look like messages and are none: then the router is replaced.
    @inlinable public static var strayLinesMax: Int { 10 }
    /// `proxy_error` questions of one connection: failover in a circle ends.
    @inlinable public static var errorQuestionsMax: Int { 16 }
    /// Undecided answers of one connection after which it is asked about only every `slowQuestionMilliseconds`.
    @inlinable public static var quickQuestionsMax: Int { 64 }
    /// The pause between two questions about a client that sends byte by byte.
    @inlinable public static var slowQuestionMilliseconds: Int { 50 }
    /// `remotes`: candidates of one verdict.
    @inlinable public static var remotesMax: Int { 64 }
    /// Questions of one round are written when they are so many bytes, more than a socket holds: then it is known whether the
    /// router reads, and one that does not is put no more.
    @inlinable public static var routerRoundBytes: Int { 262_144 }
    /// What a router that does not read must be told beside questions, which it is not asked meanwhile; with more it is replaced.
    @inlinable public static var routerUnreadBytesMax: Int { 1_048_576 }
    /// A line of a router's stderr is cut here for the log.
    @inlinable public static var routerErrorLineBytesMax: Int { 4096 }
    /// Lines of a router's stderr that are logged in a second; a flood's rest is counted.
    @inlinable public static var routerErrorLinesPerSecond: Int { 200 }

    /// Verdicts that one worker keeps for further connections; the one not used for longest goes first.
    @inlinable public static var cacheEntriesMax: Int { 16_384 }
    /// The memory they take all together.
    @inlinable public static var cacheBytesMax: Int { 16_777_216 }
    /// A longer verdict is not kept, nor one with so long a key: it would push hundreds of others out.
    @inlinable public static var cacheEntryBytesMax: Int { 65_536 }
    /// The head of an HTTP request is looked through for its host as far as this: four times what servers take.
    @inlinable public static var requestHeadBytesMax: Int { 32_768 }

    // MARK: Rewriting

    /// Rewriters that have connected and not said their token, beyond those that routers were asked for; of more the one that has
    /// waited longest is closed.
    @inlinable public static var streamDialersMax: Int { 64 }
    /// The token is said at once by whoever has one.
    @inlinable public static var streamTokenMilliseconds: Int { 2_000 }
    /// Rewriters that the kernel lets wait to be accepted: two for each client of a burst, and the next ones wait in connect(2).
    @inlinable public static var streamBacklog: Int { 2048 }

    // MARK: The data plane

    /// Threads that wait in getaddrinfo(3), beside the loop.
    @inlinable public static var resolverThreadsMax: Int { 4 }
    /// Look-ups waiting for one of those threads; beyond that a connect fails with `dns`.
    @inlinable public static var waitingLookupsMax: Int { 1024 }
    /// Addresses of one name that are tried.
    @inlinable public static var addressesMax: Int { 16 }
    /// The pause before the next address is tried beside the one before it (RFC 8305 says 250 ms).
    @inlinable public static var addressDelayMilliseconds: Int { 250 }
    /// Pipes of one worker: the kernel gives an unprivileged user 64 of 1 MiB in all, then it makes them tiny.
    @inlinable public static var pipesMax: Int { 64 }
    /// A pipe of splice(2): `fs.pipe-max-size`, what Linux gives without privileges.
    @inlinable public static var pipeBytes: Int { 1_048_576 }
    /// A smaller pipe is slower than copying, and is given back.
    @inlinable public static var pipeBytesUseful: Int { 65_536 }
    /// What one flow may move before the others have their turn.
    @inlinable public static var flowBytesPerTurn: Int { 524_288 }
    /// One lent buffer: small ones cost twice the system calls.
    @inlinable public static var bufferBytes: Int { 262_144 }
    /// Accepts of one wake-up, so that the other workers get theirs.
    @inlinable public static var acceptsPerTurn: Int { 4 }
    /// The same for a worker that shares with nobody.
    @inlinable public static var acceptsPerTurnAlone: Int { 64 }
    /// The pause after accept(2) ran out of descriptors or memory.
    @inlinable public static var acceptPauseMilliseconds: Int { 100 }
    /// Descriptors of a worker beside its connections and pipes: listeners, router, log, epoll, control, a spare.
    @inlinable public static var descriptorReserve: Int { 128 }
    /// How long a client may take nothing of its last bytes: an answer's end or a file. Then it has stalled.
    @inlinable public static var stallMilliseconds: Int { 30_000 }
    /// How long a client may take for its TLS handshake: a few round trips of the slowest network, and not for ever.
    @inlinable public static var handshakeMilliseconds: Int { 10_000 }
    /// After an answer what the client still sends is read and dropped until it is silent for this long, so that no
    /// reset eats the answer.
    @inlinable public static var lingerMilliseconds: Int { 2_000 }
    /// The same from the answer's end, however much the client says.
    @inlinable public static var lingerTotalMilliseconds: Int { 30_000 }
    /// Bytes that are dropped in that time; a client that pours on is closed.
    @inlinable public static var lingerBytesMax: Int { 16_777_216 }

    // MARK: TLS

    /// `--ssl-certfile`, its folders' files included: each is some kilobytes in every worker.
    @inlinable public static var certificatesMax: Int { 1024 }
    /// A certificate with its chain, a key, or a list of authorities: the longest lists are a quarter of it.
    @inlinable public static var certificateFileBytesMax: Int { 1_048_576 }
    /// All of them together, as they go to a worker.
    @inlinable public static var certificateBytesMax: Int { 16_777_216 }
    /// An OCSP response beside a certificate: with its signer's certificate a few kilobytes. OpenSSL's clients take no
    /// more than 16,380 bytes.
    @inlinable public static var ocspResponseBytesMax: Int { 16_000 }
    /// `--ssl-ciphers`: longer than the names of all ciphers there are.
    @inlinable public static var tlsCiphersBytesMax: Int { 4096 }
    /// `--ssl-alpn`.
    @inlinable public static var alpnProtocolsMax: Int { 16 }
    /// How long a key seals new session tickets.
    @inlinable public static var ticketKeyMilliseconds: Int { 21_600_000 }
    /// Keys that open tickets, the one that seals among them.
    @inlinable public static var ticketKeysMax: Int { 3 }
    /// How long a session ticket is good: whoever steals a ticket key reads what was resumed with it, so no longer than a
    /// working day, and long enough for those who come back the same day.
    @inlinable public static var tlsTicketSeconds: Int { 43_200 }
    /// Different `ssl_args` that are kept ready; those used least recently go.
    @inlinable public static var remoteArgumentsMax: Int { 64 }
    /// Sessions that can be resumed with remotes, for one `ssl_args`: some kilobytes each, with the remote's certificates.
    @inlinable public static var remoteSessionsMax: Int { 256 }
    /// Sessions that can be resumed with one remote: as many connections to it can begin at once without a full handshake.
    @inlinable public static var sessionsOfRemoteMax: Int { 8 }
    /// A file named in `ssl_args`: the longest lists of authorities are a quarter of it.
    @inlinable public static var remoteFileBytesMax: Int { 1_048_576 }

    // MARK: The logs

    /// A line for people is cut here, at a character.
    @inlinable public static var logLineBytesMax: Int { 8192 }
    /// One value inside a line: what a client sends must not push the rest out.
    @inlinable public static var logValueBytesMax: Int { 1024 }
    /// The `note` of a verdict in the access line.
    @inlinable public static var accessNoteBytesMax: Int { 256 }
    /// Access lines gathered in one round of the loop; a full buffer is written at once.
    @inlinable public static var accessBufferBytes: Int { 65_536 }
    /// Log lines waiting for a slow reader; what does not fit is counted and dropped.
    @inlinable public static var logBufferBytes: Int { 65_536 }
    /// The same complaint is written at most once in this time, with the count of what was left out.
    @inlinable public static var logPaceMilliseconds: Int { 1_000 }

    // MARK: The arbiter

    /// How long a process that was told to stop has before it is killed, beyond its own deadline.
    @inlinable public static var killAfterMilliseconds: Int { 2_000 }
    /// Tries to bind an address that is in use.
    @inlinable public static var bindTries: Int { 5 }
    /// The pause between two tries to bind.
    @inlinable public static var bindPauseMilliseconds: Int { 1_000 }
    /// `--reload`: how long files have to be left alone before the routers are replaced.
    @inlinable public static var reloadPauseMilliseconds: Int { 200 }
    /// Orders of routers, `close` and `invalidate`, that wait for a worker or the arbiter to read; more come to one that drops all
    /// kept verdicts.
    @inlinable public static var ordersWaitingMax: Int { 1024 }
    /// How soon those that wait are tried again.
    @inlinable public static var ordersPauseMilliseconds: Int { 10 }
    /// How often a worker writes its heartbeat at least.
    @inlinable public static var heartbeatMilliseconds: Int { 1_000 }
}
