// The life of one connection, from accept to close, phase by phase in the order in which they are lived.

import Addressing
import Config
import Linux
import Reactor
import RouterProtocol
import SystemPackage
import TLS

/// Which socket of a connection an event is about.
enum Side: Equatable {
    case client
    case remote
    /// A second address of the remote, tried beside the first.
    case racer
    /// The socket of a direction's rewriter.
    case rewriter(StreamDirection)
}

/// What can happen to a connection.
enum ConnectionEvent {
    case ready(Side, Readiness)
    /// The last turn's share was used up; the next turn begins.
    case resume
    case verdict(Verdict)
    /// The verdict names a descriptor of the router's, and the file is in `Surroundings.takenFile`.
    case takenFile(FileVerdict)
    /// The descriptor that a verdict names could not be had.
    case fileFailed(FileVerdict, String)
    /// What to do about a remote that failed.
    case errorAnswer(ProxyErrorAnswer)
    /// No verdict will come.
    case routerFailed(CloseReason)
    case names([SocketAddress])
    case namesFailed(String)
    /// Time is up. With the reason why no router has been asked yet, if it waits for one.
    case deadline(QuestionFailure?)
    /// The rewriter of a direction has dialled back, and its socket is in `Surroundings.arrivedStream`.
    case streamArrived(StreamDirection)
    /// The end of its bytes, whenever it comes, is meant.
    case streamEnded(StreamDirection)
    /// It wants no more of the source's bytes.
    case streamDetached(StreamDirection)
    /// The direction cannot be rewritten, or not to its end.
    case streamFailed(StreamDirection, StreamFailure)
    /// A router wants it ended.
    case close(reset: Bool)
    /// The worker ends at once.
    case stop
}

/// One connection: where it is in its life, what is known of it, and the question it has open.
struct Connection: ~Copyable {
    private(set) var phase: Phase
    var facts: Facts
    /// Names the open question to `Routers`.
    var question: QuestionToken?
    /// The state of the cache when the open question was asked.
    var cacheEpoch: UInt64 = 0
    /// The kept verdict that it goes by, to be dropped should it fail.
    var cacheEntry: CacheEntryID?
    /// Its share of this turn was used up, and `.resume` will come.
    var waitsForTurn = false

    init(client: consuming Transport, _ facts: Facts, _ around: borrowing Surroundings) {
        self.facts = facts
        phase =
            client.isPlain
            ? .routing(Routing(client: client, facts, around)) : .greeting(Greeting(client: client, around))
    }

    /// Lets one thing happen; what the worker is to do about it comes back.
    mutating func handle(_ event: ConnectionEvent, _ around: inout Surroundings) -> Effects {
        around.effects = Effects()
        phase.handle(event, &facts, &around)
        return around.effects
    }

    /// Why it ended, once it has.
    var closeReason: CloseReason? {
        switch phase {
        case .closed(let reason): reason
        default: nil
        }
    }
}

/// Where a connection is in its life. Entering a phase consumes the one before it; what a phase drops is closed.
enum Phase: ~Copyable {
    /// The TLS handshake with the client, if its listener speaks TLS.
    case greeting(Greeting)
    /// Gathering the initial bytes and asking for a verdict.
    case routing(Routing)
    /// Connecting to the remote.
    case dialing(Dialing)
    /// The remote failed: asking what to do instead.
    case recovering(Recovering)
    /// Bytes both ways.
    case relaying(Relaying)
    /// The last bytes or a file, then a lingering close.
    case finishing(Finishing)
    case closed(CloseReason)

    mutating func handle(_ event: ConnectionEvent, _ facts: inout Facts, _ around: inout Surroundings) {
        self =
            switch consume self {
            case .greeting(let phase): phase.handle(event, &facts, &around)
            case .routing(let phase): phase.handle(event, &facts, &around)
            case .dialing(let phase): phase.handle(event, &facts, &around)
            case .recovering(let phase): phase.handle(event, &facts, &around)
            case .relaying(let phase): phase.handle(event, &facts, &around)
            case .finishing(let phase): phase.handle(event, &facts, &around)
            case .closed(let reason): .closed(reason)
            }
    }

    /// How many bytes the open question carries.
    var askedBytes: Int {
        switch self {
        case .routing(let phase): phase.askedBytes
        default: 0
        }
    }

    /// The client's socket while a question is open.
    var clientSocket: Int32? {
        switch self {
        case .routing(let phase): phase.clientSocket
        default: nil
        }
    }

    /// Lends what the open question is about, and the bytes it carries.
    func withQuestion(_ body: (QuestionSubject, Span<UInt8>) -> Void) {
        switch self {
        case .routing(let phase): phase.withInitial { body(phase.subject, $0) }
        default: break
        }
    }

    /// What was agreed with a client whose TLS ends here, while a question is open.
    var tlsFacts: TLSFacts? {
        switch self {
        case .routing(let phase): phase.tlsFacts
        default: nil
        }
    }

    /// What failed, while the router is asked about it.
    var failure: RemoteFailure? {
        switch self {
        case .recovering(let phase): phase.failure
        default: nil
        }
    }

    /// The reason it ends for, as far as that is known.
    var reason: CloseReason? {
        switch self {
        case .recovering(let phase): phase.failure.closeReason
        case .finishing(let phase): phase.reason
        case .closed(let reason): reason
        case .greeting: nil
        case .routing: nil
        case .dialing: nil
        case .relaying: nil
        }
    }

    /// When the connection wants to be woken: the phase's one deadline, in monotonic milliseconds.
    var deadline: Int64? {
        switch self {
        case .greeting(let phase): phase.deadline
        case .routing(let phase): phase.deadline
        case .dialing(let phase): phase.deadline
        case .recovering: nil
        case .relaying(let phase): phase.deadline
        case .finishing(let phase): phase.deadline
        case .closed: nil
        }
    }
}

/// What a question is about, beside the bytes it carries.
struct QuestionSubject {
    /// Why it is asked.
    let event: Event
    /// The router's own, from an earlier verdict.
    let state: [UInt8]?
    /// What has been read of the ClientHello of a client that speaks TLS through us.
    let hello: ClientHelloReader?
    /// The name that a client whose TLS ends here has asked for.
    let serverName: String?
}

// MARK: - Greeting

/// The TLS handshake with the client. Nobody is asked before it is done.
struct Greeting: ~Copyable {
    private var client: Transport
    private let milliseconds: Int
    let deadline: Int64

    init(client: consuming Transport, _ around: borrowing Surroundings) {
        self.client = client
        milliseconds = min(Limits.handshakeMilliseconds, around.settings.verdictTimeoutMilliseconds)
        deadline = around.now + Int64(milliseconds)
    }

    consuming func handle(_ event: ConnectionEvent, _ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        switch event {
        case .ready(_, let readiness):
            client.note(readiness)
            return proceed(&facts, &around)
        case .resume: return proceed(&facts, &around)
        case .deadline:
            if around.now < deadline { return .greeting(self) }
            around.effects.remark = "no TLS handshake within \(milliseconds) ms"
            return .closed(.clientTLS)
        case .close(let reset):
            if reset { client.resetOnClose() }
            return .closed(.ordered)
        case .stop: return .closed(.stopped)
        case .verdict, .takenFile, .fileFailed, .errorAnswer, .routerFailed, .names, .namesFailed, .streamArrived,
            .streamEnded, .streamDetached, .streamFailed:
            return .greeting(self)
        }
    }

    private consuming func proceed(_ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        switch client.handshake() {
        case .done:
            // What came right behind the handshake has been received with it.
            return Routing(client: client, facts, around).proceed(&facts, &around)
        case .waiting:
            // It has sent more than one look at the socket brings.
            if client.mayRead { around.effects.moreToDo = true }
            do throws(Errno) {
                try client.watch(around.poller, facts.token.with(kind: TokenKind.client))
            } catch {
                around.effects.watchFailure = .overloaded
            }
            return .greeting(self)
        case .failed(let failure):
            // One that only looked whether somebody listens, or has changed its mind, has done nothing wrong.
            if failure.errno == .connectionReset { return .closed(.clientLeft) }
            around.effects.remark = "TLS handshake: \(failure)"
            // It gets the alert that says why.
            return Finishing.end(client, nil, .clientTLS, &facts, &around)
        }
    }
}

// MARK: - Routing

/// Gathers the initial bytes and asks until there is a verdict. While a question is open, bytes stay in the kernel.
struct Routing: ~Copyable {
    fileprivate var client: Transport
    /// Everything the client sent that is not consumed; nil before the first byte.
    private var initial: Buffer?
    /// What a verdict wants the client to be told while nothing is decided.
    fileprivate var outgoing: Buffer?
    /// What the next question gives back to the router.
    private(set) var state: [UInt8]?
    /// For a client that speaks TLS through us: what its first message has shown so far.
    private(set) var hello: ClientHelloReader?
    private(set) var isAsked = false
    /// How many bytes the open or the last question carried.
    private(set) var askedBytes = 0
    /// The next question waits for so many bytes.
    private var wantedBytes = 1
    private var undecidedAnswers = 0
    /// A client that drips is not asked about before this.
    private var askNotBefore: Int64?
    private var clientHasEnded = false
    /// Why the open or the last question was asked.
    private(set) var event = Event.data
    /// What has been asked about once is not asked about again.
    private var askedAbout = EventSet()
    /// When the client counts as silent; nil when nobody wants to know, or it has been said.
    private var silentAt: Int64?
    private var verdictDeadline: Int64

    init(client: consuming Transport, _ facts: Facts, _ around: borrowing Surroundings) {
        self.client = client
        verdictDeadline = facts.acceptedAt / 1000 + Int64(around.settings.verdictTimeoutMilliseconds)
        if around.wantedEvents.contains(.silence) { silentAt = around.now + Int64(around.settings.silenceMilliseconds) }
    }

    var deadline: Int64 {
        // Nothing is asked while a reply is on its way: then writability brings us back.
        isAsked || outgoing != nil
            ? verdictDeadline : min(verdictDeadline, askNotBefore ?? .max, silentAt ?? .max)
    }

    /// Lends the bytes of the open question.
    func withInitial(_ body: (Span<UInt8>) -> Void) {
        switch initial {
        case .some(let buffer): body(unsafe buffer.bytes.bytes._unsafeView(as: UInt8.self))
        case .none: body(Span())
        }
    }

    /// The parts that the next phase goes on with.
    fileprivate consuming func take() -> Parts { Parts(client: client, initial: initial, outgoing: outgoing) }

    fileprivate struct Parts: ~Copyable {
        var client: Transport
        var initial: Buffer?
        var outgoing: Buffer?
    }

    var clientSocket: Int32 { client.raw }
    var tlsFacts: TLSFacts? { client.tlsFacts }
    var subject: QuestionSubject {
        QuestionSubject(event: event, state: state, hello: hello, serverName: client.serverName)
    }
    fileprivate var count: Int { initial.count }

    consuming func handle(_ event: ConnectionEvent, _ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        switch event {
        case .ready(_, let readiness):
            client.note(readiness)
            if readiness.contains(.error), client.takeError() != nil {
                return leave(.clientReset, &around)
            }
            return proceed(&facts, &around)
        case .resume:
            // The first router may have come, and wants to hear of silence.
            if silentAt == nil, !isAsked, wants(.silence, around) {
                silentAt = around.now + Int64(around.settings.silenceMilliseconds)
            }
            return proceed(&facts, &around)
        case .verdict(let verdict):
            isAsked = false
            facts.toldBefore = facts.bytesToClient &+ UInt64(outgoing.count)
            return carryOut(verdict, &facts, &around)
        case .takenFile(let verdict):
            isAsked = false
            facts.decided("file", verdict.labels, around)
            guard let file = around.takenFile.take() else {
                return undecided(.fileFailed, &facts, &around)
            }
            return Finishing.send(file, verdict, client, outgoing.take(), &facts, &around)
        case .fileFailed(let verdict, let message):
            isAsked = false
            facts.toldBefore = facts.bytesToClient &+ UInt64(outgoing.count)
            facts.decided("file", verdict.labels, around)
            let failure = RemoteFailure(kind: .file, message: message)
            return Recovering.ask(client, outgoing.take(), failure, byReset: false, retry: .impossible, &around)
        case .routerFailed(let reason):
            isAsked = false
            return undecided(reason, &facts, &around)
        case .deadline(let wait):
            if around.now < verdictDeadline { return proceed(&facts, &around) }
            if isAsked { around.effects.asking = .withdraw }
            isAsked = false
            if around.wantedEvents.contains(.timeout), askedAbout.insert(.timeout).inserted {
                // The last chance to decide, for as long as a router has for any question.
                verdictDeadline = around.now + Int64(around.settings.routerTimeoutMilliseconds)
                ask(.timeout, &around)
                return .routing(self)
            }
            around.effects.remark = wait?.remark
            return undecided(wait.map { CloseReason($0) } ?? .verdictTimeout, &facts, &around)
        case .close(let reset):
            if isAsked { around.effects.asking = .withdraw }
            return Finishing.end(client, outgoing.take(), .ordered, reset: reset, &facts, &around)
        case .stop: return .closed(.stopped)
        case .errorAnswer, .names, .namesFailed, .streamArrived, .streamEnded, .streamDetached, .streamFailed:
            return .routing(self)
        }
    }

    /// Nothing was decided and nothing will be: the fallback, if there is one and it is not the router's own fault.
    private consuming func undecided(
        _ reason: CloseReason, _ facts: inout Facts, _ around: inout Surroundings
    ) -> Phase {
        if let fallback = around.settings.fallback, reason.isForFallback {
            facts.decided("fallback", Labels(), around)
            // No router has decided, and none is to stand in its way.
            facts.rewritten = []
            var verdict = RemoteVerdict(remotes: [fallback])
            verdict.rewrite = []
            return Dialing(self, verdict).start(&facts, &around)
        }
        return Finishing.end(client, outgoing.take(), reason, &facts, &around)
    }

    private consuming func leave(_ reason: CloseReason, _ around: inout Surroundings) -> Phase {
        if isAsked { around.effects.asking = .withdraw }
        return .closed(reason)
    }

    /// Does what can be done without a verdict: tells the client what is outgoing, gathers bytes, asks.
    consuming func proceed(_ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        do throws(Errno) {
            while outgoing != nil, client.mayWrite {
                if case .moved(let count) = try client.write(&outgoing) { facts.bytesToClient &+= UInt64(count) }
            }
            if !isAsked, outgoing == nil, !wants(.connect, around) { try gather(&around) }
        } catch {
            if isAsked { around.effects.asking = .withdraw }
            return Finishing.lose(client, &facts, &around)
        }
        if !isAsked, outgoing == nil {
            if let event = nextEvent(around) {
                ask(event, &around)
            } else if clientHasEnded, !hasNews {
                return count == 0 && undecidedAnswers == 0
                    ? .closed(.clientLeft) : Finishing.end(client, nil, .undecided, &facts, &around)
            } else if count >= around.settings.maxInitialBytes, !hasNews {
                around.effects.remark = "no verdict after \(count) initial bytes (--max-initial-bytes)"
                return Finishing.end(client, nil, .undecided, &facts, &around)
            }
        }
        do throws(Errno) {
            try client.watch(around.poller, facts.token.with(kind: TokenKind.client))
        } catch {
            around.effects.watchFailure = .overloaded
        }
        return .routing(self)
    }

    /// Whether there is more than the last question carried, and as much as its verdict asked for.
    private var hasNews: Bool { count > 0 && (count >= wantedBytes || clientHasEnded && count > askedBytes) }

    /// Whether the router wants to be asked about something it has not been asked about yet.
    private func wants(_ event: EventSet, _ around: borrowing Surroundings) -> Bool {
        around.wantedEvents.contains(event) && !askedAbout.contains(event)
    }

    /// What there is to ask about now. Bytes come first; a client that drips waits for its pace.
    private mutating func nextEvent(_ around: borrowing Surroundings) -> Event? {
        if wants(.connect, around) { return .connect }
        if let askNotBefore, around.now >= askNotBefore { self.askNotBefore = nil }
        if hasNews { return askNotBefore == nil ? .data : nil }
        if clientHasEnded { return count + undecidedAnswers > 0 && wants(.eof, around) ? .eof : nil }
        if let silentAt, around.now >= silentAt { return .silence }
        return nil
    }

    private mutating func ask(_ event: Event, _ around: inout Surroundings) {
        isAsked = true
        self.event = event
        readHello(around)
        askedAbout.insert(EventSet(event))
        askedBytes = count
        // Said once; only new bytes make another silence.
        silentAt =
            (event == .data || event == .connect) && around.wantedEvents.contains(.silence)
            ? around.now + Int64(around.settings.silenceMilliseconds) : nil
        around.effects.asking = .question
    }

    /// Reads on in the first message of a client that speaks TLS: each byte is looked at once, however often it is asked about.
    private mutating func readHello(_ around: borrowing Surroundings) {
        guard initial.first == ClientHelloReader.firstByte, client.isPlain else { return }
        var reader = hello ?? ClientHelloReader(bytesMax: around.settings.maxInitialBytes)
        withInitial { _ = reader.read($0) }
        hello = reader
    }

    /// Reads what has arrived, as far as the limit goes.
    private mutating func gather(_ around: inout Surroundings) throws(Errno) {
        guard let scratch = unsafe around.pools.scratch.baseAddress else { return }
        while client.mayRead, !clientHasEnded, count < around.settings.maxInitialBytes {
            let room = unsafe min(around.settings.maxInitialBytes - count, around.pools.scratch.count)
            switch try unsafe client.read(into: scratch, count: room) {
            case .moved(0):
                around.effects.moreToDo = true
                return
            case .moved(let count):
                let bytes = unsafe UnsafeRawBufferPointer(start: scratch, count: count)
                unsafe initial.append(bytes)
            case .wouldBlock: return
            case .endOfStream: clientHasEnded = true
            }
        }
    }

    private consuming func carryOut(
        _ verdict: Verdict, _ facts: inout Facts, _ around: inout Surroundings
    ) -> Phase {
        switch verdict {
        case .undecided(let waitFor):
            countUndecided(around)
            wantedBytes = max(waitFor ?? 0, askedBytes + 1)
            return proceed(&facts, &around)
        case .exchange(let exchange):
            countUndecided(around)
            drop(exchange.consume)
            if let state = exchange.state { self.state = state }
            if !exchange.reply.isEmpty { outgoing.append(exchange.reply) }
            askedBytes = exchange.asksAtOnce ? 0 : count
            wantedBytes = exchange.asksAtOnce ? 1 : max(exchange.waitFor ?? 0, count + 1)
            return proceed(&facts, &around)
        case .remote(let verdict):
            facts.decided("remote", verdict.labels, around)
            return Dialing(self, verdict).start(&facts, &around)
        case .close(let verdict):
            facts.decided("close", verdict.labels, around)
            if verdict.reset {
                client.resetOnClose()
                return .closed(.closedByReset)
            }
            outgoing.append(verdict.bytes)
            return Finishing.end(client, outgoing.take(), .closed, &facts, &around)
        case .file(let verdict):
            facts.decided("file", verdict.labels, around)
            guard case .path(let path) = verdict.source else {
                // A descriptor comes as `.file`: the worker takes it from the router first.
                return undecided(.fileFailed, &facts, &around)
            }
            do throws(RegularFile.Failure) {
                let file = try around.open(path)
                return Finishing.send(file, verdict, client, outgoing.take(), &facts, &around)
            } catch {
                let failure = RemoteFailure(file: error, name: path)
                return Recovering.ask(client, outgoing.take(), failure, byReset: false, retry: .impossible, &around)
            }
        }
    }

    /// A client that sends byte by byte is not asked about more often than the pace allows.
    private mutating func countUndecided(_ around: borrowing Surroundings) {
        undecidedAnswers += 1
        let isQuick = undecidedAnswers < Limits.quickQuestionsMax
        askNotBefore = isQuick ? nil : around.now + Int64(Limits.slowQuestionMilliseconds)
    }

    private mutating func drop(_ count: Int) {
        guard count > 0, initial != nil else { return }
        initial!.drop(min(count, self.count))
        hello = nil
    }
}

// MARK: - Dialing

/// Connects to the verdict's remotes, in order, until one stands.
struct Dialing: ~Copyable {
    fileprivate var client: Transport
    /// What the remote is sent first, with the connect if it can be.
    private var toRemote: Buffer?
    /// The same for a remote that has to hear something else before: a PROXY header, a TLS handshake.
    private var toRemoteLater: Buffer?
    /// How many bytes that was before a near remote took some.
    private let toRemoteCount: Int
    /// What the client is sent ahead of anything from the remote.
    private var toClient: Buffer?
    /// On the heap: it is as large as all the rest, and relays have no use for it.
    private final class VerdictBox {
        let verdict: RemoteVerdict
        init(_ verdict: RemoteVerdict) { self.verdict = verdict }
    }
    private let box: VerdictBox
    private var tried: [ErrorQuestion.Attempt] = []
    private var nextRemote = 0
    /// The client's bytes are the first thing that the remote hears.
    private var isDirect = true
    /// Nil while a name is being resolved, and once a remote is connected.
    private var dialer: Dialer?
    /// The remote that is connected and shakes hands.
    private var securing: Transport?
    private var remoteDeadline: Int64 = .max

    init(_ routing: consuming Routing, _ verdict: RemoteVerdict) {
        box = VerdictBox(verdict)
        var parts = routing.take()
        var toRemote: Buffer?
        if let data = verdict.data {
            toRemote.append(data)
        } else if var initial = parts.initial.take() {
            initial.drop(min(verdict.consume, initial.count))
            if !initial.isEmpty { toRemote = consume initial }
        }
        toRemoteCount = toRemote.count
        self.toRemote = toRemote
        var toClient = parts.outgoing.take()
        if verdict.replyBefore { toClient.append(verdict.reply) }
        self.toClient = toClient
        client = parts.client
    }

    /// Other remotes in place of those that failed, with the bytes that those were to get.
    fileprivate init(
        instead verdict: RemoteVerdict, client: consuming Transport, toRemote: consuming Buffer?,
        toClient: consuming Buffer?, after failure: RemoteFailure
    ) {
        box = VerdictBox(verdict)
        var bytes = toRemote
        if let data = verdict.data {
            bytes = nil
            bytes.append(data)
        }
        toRemoteCount = bytes.count
        self.toRemote = bytes
        var reply = toClient
        if verdict.replyBefore { reply.append(verdict.reply) }
        self.toClient = reply
        self.client = client
        tried = failure.attempts
    }

    var deadline: Int64 { min(remoteDeadline, nextAttempt ?? .max) }
    private var nextAttempt: Int64? {
        switch dialer {
        case .some(let dialer): dialer.nextAttemptAt
        case .none: nil
        }
    }

    consuming func start(_ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        // Through a rewriter they go, not past it.
        isDirect = box.verdict.isDirect && !facts.rewritten(by: box.verdict).contains(.toRemote)
        if !isDirect { toRemoteLater = toRemote.take() }
        guard reply(&facts, &around) else { return .closed(.clientReset) }
        return dialNext(&facts, &around)
    }

    consuming func handle(_ event: ConnectionEvent, _ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        switch event {
        case .ready(.client, let readiness):
            client.note(readiness)
            // A client that is gone needs no remote; one that has only ended its side still wants the answer.
            if readiness.contains(.error), client.takeError() != nil { return .closed(.clientReset) }
            return reply(&facts, &around) ? .dialing(self) : .closed(.clientReset)
        case .ready(let side, let readiness):
            if securing != nil {
                securing!.note(readiness)
                return secure(&facts, &around)
            }
            guard dialer != nil else { return .dialing(self) }
            let progress = dialer!.ready(side, readiness, &toRemote, around)
            return advanced(progress, &facts, &around)
        case .names(let addresses):
            return dial(addresses, &facts, &around)
        case .namesFailed(let why):
            return failed(.dns, why, nil, &facts, &around)
        case .deadline:
            if around.now >= remoteDeadline {
                let what = securing == nil ? "connect" : "TLS handshake"
                return failed(.connectTimeout, "\(what) timed out", .timedOut, &facts, &around)
            }
            guard dialer != nil else { return .dialing(self) }
            let progress = dialer!.advance(&toRemote, around)
            return advanced(progress, &facts, &around)
        case .close(let reset):
            return Finishing.end(client, toClient.take(), .ordered, reset: reset, &facts, &around)
        case .stop: return .closed(.stopped)
        case .resume: return secure(&facts, &around)
        case .verdict, .takenFile, .fileFailed, .errorAnswer, .routerFailed, .streamArrived, .streamEnded,
            .streamDetached, .streamFailed:
            return .dialing(self)
        }
    }

    /// Tells the client what does not wait for the remote; false when it is gone.
    private mutating func reply(_ facts: inout Facts, _ around: inout Surroundings) -> Bool {
        do throws(Errno) {
            while toClient != nil, client.mayWrite {
                if case .moved(let count) = try client.write(&toClient) { facts.bytesToClient &+= UInt64(count) }
            }
            try client.watch(around.poller, facts.token.with(kind: TokenKind.client))
            return true
        } catch {
            return false
        }
    }

    private consuming func dialNext(_ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        guard nextRemote < box.verdict.remotes.count else {
            return Finishing.end(client, toClient.take(), .connectFailed, &facts, &around)
        }
        let remote = box.verdict.remotes[nextRemote]
        nextRemote += 1
        facts.remote = remote
        facts.attempts += 1
        let timeout = box.verdict.connectTimeoutMilliseconds ?? around.settings.connectTimeoutMilliseconds
        remoteDeadline = around.now + Int64(timeout)
        guard let address = SocketAddress(remote) else {
            dialer = nil
            around.effects.lookUp = remote.host
            return .dialing(self)
        }
        return dial([address], &facts, &around)
    }

    private consuming func dial(
        _ addresses: [SocketAddress], _ facts: inout Facts, _ around: inout Surroundings
    ) -> Phase {
        var made = Dialer(addresses, from: box.verdict.bind.map(SocketAddress.init(_:)), token: facts.token)
        let progress = made.tryNext(&toRemote, around)
        dialer = consume made
        return advanced(progress, &facts, &around)
    }

    private consuming func advanced(
        _ progress: consuming Dialer.Progress, _ facts: inout Facts, _ around: inout Surroundings
    ) -> Phase {
        switch consume progress {
        case .pending: return .dialing(self)
        case .connected(let remote):
            dialer = nil
            return introduce(remote, &facts, &around)
        case .failed(let error):
            let kind: ErrorQuestion.Failure =
                switch error {
                case .connectionRefused: .connectRefused
                case .timedOut: .connectTimeout
                // Who is not there refuses; a reset means that the connection stood.
                case .connectionReset: .reset
                default: .connectFailed
                }
            return failed(kind, "\(error)", error, &facts, &around)
        case .isOurselves:
            return failed(.loop, "the remote is one of our own listeners", nil, &facts, &around)
        }
    }

    /// What the remote is to hear before the client's bytes: whose connection this is, and TLS.
    private consuming func introduce(
        _ connected: consuming Transport, _ facts: inout Facts, _ around: inout Surroundings
    ) -> Phase {
        var remote = connected
        var first: Buffer?
        if let version = box.verdict.proxyProtocol {
            first.append(
                ProxyHeader.bytes(
                    version: version, client: facts.client.endpoint,
                    local: (try? Socket.localAddress(client.raw))?.endpoint, tls: client.tlsFacts))
        }
        guard let arguments = box.verdict.tls else {
            return relay(remote, ahead: first, toRemote.take() ?? toRemoteLater.take(), &facts, &around)
        }
        do throws(Errno) {
            // It goes ahead of TLS. A socket that has just been connected takes so little whole.
            if first != nil { _ = try remote.write(&first) }
        } catch {
            return failed(.reset, "\(error)", error, &facts, &around)
        }
        do throws(TLSFailure) {
            remote.speak(try around.session(with: box.verdict.remotes[nextRemote - 1], arguments, socket: remote.raw))
        } catch {
            return failed(.tls, error.message, nil, &facts, &around)
        }
        securing = consume remote
        return secure(&facts, &around)
    }

    /// Goes on with the remote's TLS handshake.
    private consuming func secure(_ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        guard var remote = securing.take() else { return .dialing(self) }
        switch remote.handshake() {
        case .done: return relay(remote, ahead: nil, toRemoteLater.take(), &facts, &around)
        case .waiting:
            if remote.mayRead { around.effects.moreToDo = true }
            do throws(Errno) {
                try remote.watch(around.poller, facts.token.with(kind: TokenKind.remote))
            } catch {
                around.effects.watchFailure = .overloaded
            }
            securing = consume remote
            return .dialing(self)
        case .failed(let failure): return failed(.tls, failure.message, nil, &facts, &around)
        }
    }

    private consuming func relay(
        _ remote: consuming Transport, ahead: consuming Buffer?, _ first: consuming Buffer?, _ facts: inout Facts,
        _ around: inout Surroundings
    ) -> Phase {
        facts.connectedAt = around.nowMicroseconds
        // What a near remote took with the connect; the flow counts the rest.
        facts.bytesToRemote = isDirect ? UInt64(max(0, toRemoteCount - first.count)) : 0
        if !box.verdict.replyBefore { toClient.append(box.verdict.reply) }
        let relaying = Relaying(
            client: client, remote: remote, ahead: ahead, toRemote: first, toClient: toClient.take(), box.verdict,
            facts,
            &around)
        return relaying.run(&facts, &around)
    }

    /// This remote will not do: the next one, or the router's word on it.
    private consuming func failed(
        _ kind: ErrorQuestion.Failure, _ why: String, _ error: Errno?, _ facts: inout Facts,
        _ around: inout Surroundings
    ) -> Phase {
        let remote = box.verdict.remotes[nextRemote - 1]
        let message = kind == .tls ? "TLS with \(remote): \(why)" : "connect to \(remote): \(why)"
        // Failover may go round often; a question's line tells of as many as one verdict can name.
        if tried.count == Limits.remotesMax { tried.removeFirst() }
        tried.append(.init(remote: remote, failure: kind, message: message))
        dialer = nil
        securing = nil
        if nextRemote < box.verdict.remotes.count { return dialNext(&facts, &around) }
        let failure = RemoteFailure(kind: kind, message: message, errno: error, remote: remote, attempts: tried)
        return Recovering.ask(
            client, toClient.take(), failure, byReset: false,
            retry: Recovering.Retry(isPossible: true, bytes: toRemote.take() ?? toRemoteLater.take()), &around)
    }
}

// MARK: - Recovering

/// The remote failed, and the router is asked what to do instead.
struct Recovering: ~Copyable {
    /// Whether another remote may be tried, and the bytes that the failed one was to get.
    struct Retry: ~Copyable {
        let isPossible: Bool
        var bytes: Buffer?

        /// Bytes have reached a remote, or there was none.
        static var impossible: Retry { Retry(isPossible: false, bytes: nil) }
    }

    fileprivate var client: Transport
    private var retry: Retry
    private var outgoing: Buffer?
    let failure: RemoteFailure
    /// Whether the end is a reset, when the router has nothing better.
    private let byReset: Bool
    private var reason: CloseReason { failure.closeReason }

    static func ask(
        _ client: consuming Transport, _ outgoing: consuming Buffer?, _ failure: RemoteFailure, byReset: Bool,
        retry: consuming Retry, _ around: inout Surroundings
    ) -> Phase {
        around.effects.remark = failure.message
        around.effects.asking = .errorQuestion
        return .recovering(
            Recovering(client: client, retry: retry, outgoing: outgoing, failure: failure, byReset: byReset))
    }

    consuming func handle(_ event: ConnectionEvent, _ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        switch event {
        case .ready(.client, let readiness):
            client.note(readiness)
            if readiness.contains(.error), client.takeError() != nil {
                around.effects.asking = .withdraw
                return .closed(.clientReset)
            }
            return .recovering(self)
        case .errorAnswer(.close(let bytes)):
            // After a byte of the answer an error page would be garbage in the middle of it. What the client was told while
            // nothing was decided is no part of that: SOCKS5 says only now whether it worked.
            if facts.bytesToClient &+ UInt64(outgoing.count) <= facts.toldBefore {
                outgoing.append(bytes)
                return Finishing.end(client, outgoing.take(), reason, &facts, &around)
            }
            return giveUp(&facts, &around)
        case .close(let reset):
            around.effects.asking = .withdraw
            return Finishing.end(client, outgoing.take(), .ordered, reset: reset, &facts, &around)
        case .errorAnswer(.remote(let verdict)): return tryInstead(verdict, &facts, &around)
        case .stop: return .closed(.stopped)
        case .errorAnswer(.none): return giveUp(&facts, &around)
        case .routerFailed: return giveUp(&facts, &around)
        case .ready, .resume, .verdict, .takenFile, .fileFailed, .names, .namesFailed, .deadline, .streamArrived,
            .streamEnded, .streamDetached, .streamFailed:
            return .recovering(self)
        }
    }

    private consuming func tryInstead(
        _ verdict: RemoteVerdict, _ facts: inout Facts, _ around: inout Surroundings
    ) -> Phase {
        guard retry.isPossible else {
            around.effects.remark = "another remote cannot be tried: bytes have reached one"
            return giveUp(&facts, &around)
        }
        let dialing = Dialing(
            instead: verdict, client: client, toRemote: retry.bytes.take(), toClient: outgoing.take(), after: failure)
        return dialing.start(&facts, &around)
    }

    private consuming func giveUp(_ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        if byReset {
            client.resetOnClose()
            return .closed(reason)
        }
        return Finishing.end(client, outgoing.take(), reason, &facts, &around)
    }
}

// MARK: - Relaying

/// Bytes both ways, until both sides have ended theirs.
struct Relaying: ~Copyable {
    private var client: Transport
    private var remote: Transport
    private var toRemote: Direction
    private var toClient: Direction
    private var endPassedToRemote = false
    private var endPassedToClient = false
    /// The remote takes nothing any more; what it said before is still delivered to the client.
    private enum Deafness: Equatable {
        case none
        /// It has ended in order and only takes no more.
        case ended
        /// It is gone: a reset, or the kernel has given it up. That ends all, once the client has what it said before.
        case reset(Errno)

        /// EPIPE is the kernel's word for a reset that comes after the peer's end.
        init(_ error: Errno) { self = error == .brokenPipe ? .ended : .reset(error) }
    }
    private var deafness = Deafness.none
    private let inactivityMilliseconds: Int?
    /// When the remote last said something, in milliseconds. Once nobody says anything any more: when what was said was last
    /// seen on its way.
    private var remoteSpokeAt: Int64
    /// Ciphertext that both sides had taken in the last turn.
    private var sentCiphertext: UInt64 = 0

    /// `ahead` is what the remote gets before anything of the client's, `toRemote` what it gets before what the client says from now
    /// on, `toClient` what the client gets ahead of the remote's first byte. The directions that are to be rewritten wait for their rewriters.
    fileprivate init(
        client: consuming Transport, remote: consuming Transport, ahead: consuming Buffer?, toRemote: consuming Buffer?,
        toClient: consuming Buffer?, _ verdict: RemoteVerdict, _ facts: Facts, _ around: inout Surroundings
    ) {
        let rewritten = facts.rewritten(by: verdict)
        self.client = client
        self.remote = remote
        if rewritten.contains(.toRemote) {
            self.toRemote = Direction(rewriting: toRemote, ahead: ahead)
        } else {
            var first = ahead
            first.append(toRemote)
            self.toRemote = Direction(startingWith: first)
        }
        self.toClient =
            rewritten.contains(.toClient)
            ? Direction(rewriting: nil, ahead: toClient) : Direction(startingWith: toClient)
        if !rewritten.isEmpty {
            around.effects.streams = rewritten
            around.effects.extra = verdict.extra
        }
        inactivityMilliseconds = verdict.inactivityTimeoutMilliseconds
        remoteSpokeAt = around.now
    }

    private var isSettled: Bool { client.isSettled && remote.isSettled }
    /// What was said is still on its way, and nothing more will be.
    private var nobodySpeaks: Bool { deafness != .none || endPassedToClient && endPassedToRemote }

    /// For a remote that stands: its silence. For one that is gone: the client's patience with what it said before. When both
    /// have ended: the patience of those who take what is left.
    var deadline: Int64? {
        if nobodySpeaks { return remoteSpokeAt + Int64(Limits.stallMilliseconds) }
        // A remote that has ended its side in order is not silent: it has said all.
        return toClient.hasEnded ? nil : inactivityMilliseconds.map { remoteSpokeAt + Int64($0) }
    }

    consuming func handle(_ event: ConnectionEvent, _ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        switch event {
        case .ready(.client, let readiness):
            client.note(readiness)
            // While the remote takes nothing nobody reads here, so the error is asked for.
            if readiness.contains(.error), client.takeError() != nil { return clientFailed(&facts, &around) }
            return run(&facts, &around)
        case .ready(.rewriter(let direction), let readiness):
            switch direction {
            case .toRemote: toRemote.note(readiness)
            case .toClient: toClient.note(readiness)
            }
            return run(&facts, &around)
        case .ready(.remote, let readiness), .ready(.racer, let readiness):
            remote.note(readiness)
            // After this the kernel still gives what came before, and then an end.
            if readiness.contains(.error), let error = remote.takeError() { deafness = Deafness(error) }
            return run(&facts, &around)
        case .resume: return run(&facts, &around)
        case .deadline:
            // While the client does not take what the remote has said, or nobody reads it, the remote is not silent.
            if !nobodySpeaks, toClient.holdsBytes || !client.isSettled || toClient.isHeld { remoteSpokeAt = around.now }
            guard let deadline, around.now >= deadline else { return .relaying(self) }
            if endPassedToClient, endPassedToRemote {
                client.resetOnClose()
                remote.resetOnClose()
                return .closed(.stalled)
            }
            if deafness != .none {
                client.resetOnClose()
                return .closed(.stalled)
            }
            if toRemote.hasEnded {
                // The client has ended its side, and may be gone: nothing failed that anybody could answer.
                remote.resetOnClose()
                return Finishing.end(client, nil, .inactivityTimeout, &facts, &around)
            }
            return remoteFailed(
                .inactivityTimeout, "no byte for \(inactivityMilliseconds ?? 0) ms", .timedOut, byReset: false, &facts,
                &around)
        case .close(let reset):
            if reset { remote.resetOnClose() }
            return Finishing.end(client, nil, .ordered, reset: reset, &facts, &around)
        case .stop:
            // Neither side may take what it got for the whole.
            client.resetOnClose()
            remote.resetOnClose()
            return .closed(.stopped)
        case .streamArrived(let direction):
            guard let stream = around.arrivedStream.take() else { return .relaying(self) }
            switch direction {
            case .toRemote: toRemote.arrived(stream)
            case .toClient: toClient.arrived(stream)
            }
            return run(&facts, &around)
        case .streamEnded(let direction):
            switch direction {
            case .toRemote: toRemote.endSaid()
            case .toClient: toClient.endSaid()
            }
            return run(&facts, &around)
        case .streamDetached(let direction):
            switch direction {
            case .toRemote: toRemote.detaching()
            case .toClient: toClient.detaching()
            }
            return run(&facts, &around)
        case .streamFailed(_, let failure):
            if case .reset(let error) = deafness {
                // Its rewriter has only fallen over the remote's end.
                return remoteFailed(.reset, "\(error)", error, byReset: true, &facts, &around)
            }
            return rewritingFailed(failure, &around)
        case .verdict, .takenFile, .fileFailed, .errorAnswer, .routerFailed, .names, .namesFailed:
            return .relaying(self)
        }
    }

    /// Moves what can be moved, and passes ends and resets on.
    fileprivate consuming func run(_ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        let before = (toRemote: toRemote.moved, toClient: toClient.moved, spoken: toClient.taken)
        // A rewriter has ended what the client gets: whatever becomes of the remote, that was the answer.
        let wasAnswered = toClient.endedEarly
        let wasRewritten = (toRemote: toRemote.isRewritten, toClient: toClient.isRewritten)
        let upward: Direction.Outcome =
            deafness != .none ? .waiting : toRemote.pump(from: &client, to: &remote, &around.pools)
        let downward = toClient.pump(from: &remote, to: &client, &around.pools)
        let hasSent = takeProgress()
        if toClient.taken != before.spoken || nobodySpeaks && hasSent { remoteSpokeAt = around.now }
        facts.bytesToRemote &+= toRemote.moved &- before.toRemote
        facts.bytesToClient &+= toClient.moved &- before.toClient

        switch downward {
        case .sourceFailed where wasAnswered: return Finishing.end(client, nil, .done, &facts, &around)
        case .sourceFailed(let error):
            let failure = remote.failure
            return remoteFailed(
                failure?.errno == .protocolError ? .tls : .reset, failure?.message ?? "\(error)", error, byReset: true,
                &facts,
                &around)
        case .targetFailed: return clientFailed(&facts, &around)
        case .waiting, .moreToDo, .finished: break
        }
        switch upward {
        case .sourceFailed: return clientFailed(&facts, &around)
        case .targetFailed(let error): deafness = Deafness(error)
        case .waiting, .moreToDo, .finished: break
        }
        if downward == .finished {
            switch deafness {
            // Its close_notify came before the reset, so what it said is whole; an end without TLS may be the kernel's.
            case .reset where wasAnswered || !remote.isPlain && remote.hasEnded:
                return Finishing.end(client, nil, .done, &facts, &around)
            case .reset(let error): return remoteFailed(.reset, "\(error)", error, byReset: true, &facts, &around)
            case .ended: return Finishing.end(client, nil, .done, &facts, &around)
            case .none:
                if upward == .finished {
                    // Closing ends a plain side. TLS says so first, and may have to wait for a socket that is full.
                    if !client.isPlain { passEndToClient(around) }
                    if !remote.isPlain { passEndToRemote(around) }
                }
                if upward == .finished, isSettled {
                    // One whose bytes a rewriter has done without may still be sending: a reset would eat what it was told.
                    return client.hasEnded ? .closed(.done) : Finishing.end(client, nil, .done, &facts, &around)
                }
            }
        }
        if downward == .finished { passEndToClient(around) }
        if upward == .finished { passEndToRemote(around) }
        if toRemote.isBroken || toClient.isBroken { return rewritingFailed(.leftBytes, &around) }
        if downward == .moreToDo || upward == .moreToDo || deafness == .none && toRemote.dropsMore || toClient.dropsMore
        {
            around.effects.moreToDo = true
        }
        if wasRewritten.toRemote {
            tend(.toRemote, left: !toRemote.isRewritten, toRemote.takeUnexplainedEnd(), &around)
        }
        if wasRewritten.toClient {
            tend(.toClient, left: !toClient.isRewritten, toClient.takeUnexplainedEnd(), &around)
        }
        do throws(Errno) {
            try client.watch(around.poller, facts.token.with(kind: TokenKind.client))
            try remote.watch(around.poller, facts.token.with(kind: TokenKind.remote))
            if wasRewritten.toRemote {
                try toRemote.watch(around.poller, facts.token.with(kind: TokenKind.toRemoteRewriter))
            }
            if wasRewritten.toClient {
                try toClient.watch(around.poller, facts.token.with(kind: TokenKind.toClientRewriter))
            }
        } catch {
            around.effects.watchFailure = .overloaded
        }
        return .relaying(self)
    }

    /// Whether a TLS peer has taken some of what waited for it, since the last time this was asked.
    private mutating func takeProgress() -> Bool {
        let sent = (client.sentCiphertext ?? 0) &+ (remote.sentCiphertext ?? 0)
        defer { sentCiphertext = sent }
        return sent != sentCiphertext
    }

    private mutating func passEndToClient(_ around: borrowing Surroundings) {
        guard !endPassedToClient else { return }
        endPassedToClient = true
        remoteSpokeAt = around.now
        client.endWriting()
    }

    private mutating func passEndToRemote(_ around: borrowing Surroundings) {
        guard !endPassedToRemote else { return }
        endPassedToRemote = true
        remoteSpokeAt = around.now
        remote.endWriting()
    }

    /// Tells the worker what has become of a rewriter.
    private func tend(
        _ direction: StreamDirection, left: Bool, _ endUnexplained: Bool, _ around: inout Surroundings
    ) {
        if left { around.effects.streamsOver.insert(StreamDirections(direction)) }
        if endUnexplained { around.effects.endsUnexplained.insert(StreamDirections(direction)) }
    }

    /// A part of a stream must not look like the whole.
    private consuming func rewritingFailed(_ failure: StreamFailure, _ around: inout Surroundings) -> Phase {
        around.effects.remark = "rewriting: \(failure.words)"
        client.resetOnClose()
        remote.resetOnClose()
        return .closed(.rewriteAborted)
    }

    /// The client is gone: the remote must not take what it got for the whole.
    private consuming func clientFailed(_ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        if !endPassedToRemote { remote.resetOnClose() }
        // Many who speak TLS are gone once they have the whole answer: they say no close_notify, or leave ours unread, which
        // is a reset. Nothing has failed then.
        if endPassedToClient && !client.isPlain { return .closed(.done) }
        return Finishing.lose(client, &facts, &around)
    }

    /// The remote is gone or silent. Before the first byte to the client the router may still say something.
    private consuming func remoteFailed(
        _ kind: ErrorQuestion.Failure, _ why: String, _ error: Errno?, byReset: Bool, _ facts: inout Facts,
        _ around: inout Surroundings
    ) -> Phase {
        let name = facts.remote.map { "\($0)" } ?? "the remote"
        // A reset that was taken note of looks like an end to whoever reads on.
        let wasReset = if case .reset = deafness { true } else { false }
        let failure = RemoteFailure(
            kind: kind, message: "\(name): \(why)", errno: error, remote: facts.remote,
            isTruncation: !wasReset && remote.failure?.isTruncation == true)
        // It must not take what it got for the whole, should it still listen.
        remote.resetOnClose()
        if facts.bytesToClient > facts.toldBefore, byReset {
            around.effects.remark = failure.message
            client.resetOnClose()
            return .closed(failure.closeReason)
        }
        return Recovering.ask(client, nil, failure, byReset: byReset, retry: .impossible, &around)
    }
}

// MARK: - Finishing

/// Gives the client the last bytes or a file, ends our side, and reads on for a while: closing with unread bytes
/// would send a reset, and that may overtake the answer (RFC 9293, 3.10.4 and RFC 9112, 9.6).
struct Finishing: ~Copyable {
    private enum Stage { case sending, lingering }

    fileprivate var client: Transport
    private var outgoing: Buffer?
    private var file: RegularFile?
    private var offset: UInt64 = 0
    private var remaining: UInt64 = 0
    private var stage = Stage.sending
    private var drained = 0
    private var lingerEnd: Int64 = .max
    /// What the client had taken when its patience was last renewed.
    private var takenBytes: UInt64 = 0
    let reason: CloseReason
    private(set) var deadline: Int64

    private init(_ client: consuming Transport, _ outgoing: consuming Buffer?, _ reason: CloseReason, now: Int64) {
        self.client = client
        self.outgoing = outgoing
        self.reason = reason
        deadline = now + Int64(Limits.stallMilliseconds)
    }

    /// Sends these bytes, if any, and ends.
    static func end(
        _ client: consuming Transport, _ outgoing: consuming Buffer?, _ reason: CloseReason, _ facts: inout Facts,
        _ around: inout Surroundings
    ) -> Phase {
        Finishing(client, outgoing, reason, now: around.now).proceed(&facts, &around)
    }

    /// The same, or by a reset at once.
    static func end(
        _ client: consuming Transport, _ outgoing: consuming Buffer?, _ reason: CloseReason, reset: Bool,
        _ facts: inout Facts, _ around: inout Surroundings
    ) -> Phase {
        guard reset else { return end(client, outgoing, reason, &facts, &around) }
        var client = client
        client.resetOnClose()
        return .closed(reason)
    }

    /// Ends with a client that has failed. One that has broken TLS gets the alert that says how: closing with bytes of its unread
    /// would take that away again.
    static func lose(
        _ client: consuming Transport, _ facts: inout Facts, _ around: inout Surroundings
    ) -> Phase {
        let reason = client.lossReason(&around)
        guard client.failure?.errno == .protocolError else { return .closed(reason) }
        return end(client, nil, reason, &facts, &around)
    }

    /// Sends the verdict's part of a file, its reply first, and ends.
    static func send(
        _ file: consuming RegularFile, _ verdict: FileVerdict, _ client: consuming Transport,
        _ outgoing: consuming Buffer?, _ facts: inout Facts, _ around: inout Surroundings
    ) -> Phase {
        var before = outgoing
        before.append(verdict.reply)
        var finishing = Finishing(client, before, .fileSent, now: around.now)
        finishing.offset = min(verdict.offset, file.size)
        finishing.remaining = min(verdict.nbytes ?? .max, file.size - finishing.offset)
        finishing.file = consume file
        return finishing.proceed(&facts, &around)
    }

    consuming func handle(_ event: ConnectionEvent, _ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        switch event {
        case .ready(_, let readiness):
            client.note(readiness)
            return proceed(&facts, &around)
        case .resume: return proceed(&facts, &around)
        case .deadline:
            // A client that has been told to go and does not is not waited for; one that takes nothing has stalled.
            if around.now < deadline { return .finishing(self) }
            if stage == .lingering { return .closed(reason) }
            // What it has not taken must not look like the end, should it still read on.
            client.resetOnClose()
            return .closed(.stalled)
        case .close(let reset):
            // It is ending already.
            if reset { client.resetOnClose() }
            return reset ? .closed(.ordered) : .finishing(self)
        case .stop:
            // What is left of a promised answer must not look like its end.
            if stage == .sending { client.resetOnClose() }
            return .closed(.stopped)
        case .verdict, .takenFile, .fileFailed, .errorAnswer, .routerFailed, .names, .namesFailed, .streamArrived,
            .streamEnded, .streamDetached, .streamFailed:
            return .finishing(self)
        }
    }

    private consuming func proceed(_ facts: inout Facts, _ around: inout Surroundings) -> Phase {
        do throws(Errno) {
            if stage == .sending {
                let isSent = try sendAll(&facts, &around)
                renewPatience(facts, around)
                guard isSent else {
                    if file != nil, remaining > 0, client.mayWrite, !around.effects.moreToDo {
                        around.effects.remark = "the file became shorter while it was sent"
                        client.resetOnClose()
                        return .closed(.fileShrank)
                    }
                    try client.watch(around.poller, facts.token.with(kind: TokenKind.client))
                    return .finishing(self)
                }
                file = nil
                client.endWriting()
                guard client.isSettled else {
                    try client.watch(around.poller, facts.token.with(kind: TokenKind.client))
                    return .finishing(self)
                }
                stage = .lingering
                deadline = around.now + Int64(Limits.lingerMilliseconds)
                lingerEnd = around.now + Int64(Limits.lingerTotalMilliseconds)
            }
            // A client whose end has been read already has nothing more to say.
            if client.hasEnded { return .closed(reason) }
            let turnEnd = drained + Limits.flowBytesPerTurn
            while client.mayRead {
                if drained >= turnEnd {
                    around.effects.moreToDo = true
                    break
                }
                switch try client.discard(around.pools) {
                case .moved(let count):
                    drained += count
                    deadline = min(around.now + Int64(Limits.lingerMilliseconds), lingerEnd)
                case .wouldBlock: break
                case .endOfStream: return .closed(reason)
                }
                if drained > Limits.lingerBytesMax { return .closed(reason) }
            }
            try client.watch(around.poller, facts.token.with(kind: TokenKind.client))
        } catch {
            if stage == .lingering { return .closed(reason) }
            // What is left of a promised answer must not look like its end.
            client.resetOnClose()
            return .closed(client.lossReason(&around))
        }
        return .finishing(self)
    }

    /// A client that takes something, however slowly, has not stalled.
    private mutating func renewPatience(_ facts: Facts, _ around: borrowing Surroundings) {
        let taken = client.sentCiphertext ?? facts.bytesToClient
        guard taken != takenBytes else { return }
        takenBytes = taken
        deadline = around.now + Int64(Limits.stallMilliseconds)
    }

    /// Sends until everything is sent (true), the socket is full, the turn's share is used up or the file ends early.
    private mutating func sendAll(_ facts: inout Facts, _ around: inout Surroundings) throws(Errno) -> Bool {
        while outgoing != nil {
            guard client.mayWrite else { return false }
            if case .moved(let count) = try client.write(&outgoing) { facts.bytesToClient &+= UInt64(count) }
        }
        guard file != nil else { return true }
        var budget = Limits.flowBytesPerTurn
        while remaining > 0 {
            guard client.mayWrite else { return false }
            if budget <= 0 {
                around.effects.moreToDo = true
                return false
            }
            let share = Int(min(remaining, UInt64(budget)))
            switch try client.send(file!, offset: &offset, count: share, around.pools) {
            case .moved(let count):
                facts.bytesToClient &+= UInt64(count)
                remaining -= min(UInt64(count), remaining)
                budget -= count
            case .wouldBlock: return false
            case .endOfStream: return false
            }
        }
        return true
    }
}
