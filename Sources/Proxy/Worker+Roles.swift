// A worker's routers beside the one that decides: the canary, which decides for a share of the clients, and the shadow, which
// is asked the same and only compared. Each role is a `Routers` of its own, so none can disturb another.

import Addressing
import Config
import Control
import Linux
import Logging
import Logs
import Reactor

extension Worker {
    // MARK: All roles

    func withRouters<Result>(_ role: RouterRole, _ body: (inout Routers) -> Result) -> Result {
        switch role {
        case .main: body(&routers)
        case .canary: body(&canary)
        case .shadow: body(&shadow)
        }
    }

    /// How the routers of a role are started.
    func spec(_ role: RouterRole) -> RouterSpec {
        switch role {
        case .main: settings.router
        case .canary: settings.canaryRouter ?? settings.router
        case .shadow: settings.shadowRouter ?? settings.router
        }
    }

    func startRouters() {
        routers.start(now: now)
        if settings.canaryRouter != nil { canary.start(now: now) }
        if settings.shadowRouter != nil { shadow.start(now: now) }
    }

    func advanceRouters() {
        if !ending.isEmpty { giveUpClosed() }
        routers.advance(now: now)
        if settings.canaryRouter != nil { canary.advance(now: now) }
        if settings.shadowRouter != nil { shadow.advance(now: now) }
    }

    var nextRouterDeadline: Int64? {
        var deadline = routers.nextDeadline
        if !ending.isEmpty { deadline = min(deadline ?? .max, nextEnd) }
        guard settings.canaryRouter != nil || settings.shadowRouter != nil else { return deadline }
        return [deadline, canary.nextDeadline, shadow.nextDeadline].compactMap { $0 }.min()
    }

    /// HUP. The answer to the arbiter is that of the routers that decide.
    func reloadRouters() {
        routers.reload(generation: Int(clamping: generation), now: now)
        canary.reload(generation: Int(clamping: generation), now: now)
        shadow.reload(generation: Int(clamping: generation), now: now)
    }

    func drainRouters() {
        forgetShadows()
        routers.drain(now: now)
        canary.drain(now: now)
        shadow.drain(now: now)
    }

    /// What is to be done next, and by which routers.
    func nextRouterAction() -> (RouterAction, RouterRole)? {
        // The shadow first: a copy is written while its connection still holds what it is of.
        if settings.shadowRouter != nil, let action = shadow.nextAction(now: now) { return (action, .shadow) }
        if let action = routers.nextAction(now: now) { return (action, .main) }
        if settings.canaryRouter != nil, let action = canary.nextAction(now: now) { return (action, .canary) }
        return nil
    }

    /// Whether all routers are gone.
    var routersHaveLeft: Bool { routers.phase == .ended && canary.phase == .ended && shadow.phase == .ended }

    static func beside(_ spec: RouterSpec?, _ limits: RouterLimits, _ role: RouterRole, _ generation: Int) -> Routers {
        var limits = limits
        (limits.routers, limits.livesMax) = (1, 1 + Limits.routersLeavingMax)
        limits.kind = spec?.socketPath == nil ? .process : .unix
        // A worker serves without them.
        limits.mayBeAbsent = true
        // What a canary cannot answer the main router is asked; a shadow's connections have gone on.
        limits.replays = false
        limits.waitingTimeoutMilliseconds = limits.routerTimeoutMilliseconds
        limits.absenceMilliseconds = nil
        if role == .shadow { limits.questionsMax = min(limits.questionsMax, Limits.shadowQuestionsMax) }
        return Routers(limits: limits, generation: generation, role: role)
    }

    // MARK: The canary

    /// Puts a question to the routers that are to decide for this client.
    func askRouters(_ slot: UInt32, _ asker: Asker, _ kind: QuestionKind) -> Routers.Asked {
        if isForCanary(slot) {
            scoreboard.add(.canaryQuestions)
            switch canary.ask(asker, kind, now: now) {
            case .accepted(let token): return .accepted(token)
            case .refused(.notImplemented): return .refused(.notImplemented)
            case .refused:
                scoreboard.add(.canaryFailures)
                connections[slot].facts.avoidsCanary = true
            }
        }
        return routers.ask(asker, kind, now: now)
    }

    /// Whether the canary decides for a connection: a matter of the client's address alone while there is a canary.
    func isForCanary(_ slot: UInt32) -> Bool {
        guard settings.canaryRouter != nil, settings.canary > 0, canary.anyHolder != nil else { return false }
        let facts = connections[slot].facts
        return !facts.avoidsCanary && (CanaryShare.of(facts.client) ?? .max) < settings.canary
    }

    /// The canary has failed a question: the main routers are asked. False when the connection is not there any more.
    func askInsteadOfCanary(_ asker: Asker) {
        let token = Token(bits: asker.rawValue)
        guard connections.holds(token.slot, generation: token.generation) else { return }
        scoreboard.add(.canaryFailures)
        connections[token.slot].facts.avoidsCanary = true
        connections[token.slot].question = nil
        let kind: QuestionKind = connections[token.slot].phase.failure == nil ? .proxy : .proxyError
        switch routers.ask(asker, kind, now: now) {
        case .accepted(let question): connections[token.slot].question = question
        case .refused(let failure): questionFailed(token.slot, failure)
        }
    }

    func withdrawFromRouters(_ question: QuestionToken, _ asker: Asker) {
        withdrawn[asker] = connectionID(Token(bits: asker.rawValue))
        withRouters(question.role) { $0.withdraw(question, now: now) }
        undecided(asker)
    }

    // MARK: The shadow

    /// Asks the shadow what the main router is being asked, if it can take it at once. Under load it is what is left out.
    func askShadow(_ asker: Asker, _ slot: UInt32) {
        guard settings.shadowRouter != nil else { return }
        guard shadow.wouldAskAtOnce, comparisons.count < Limits.shadowQuestionsMax else {
            return scoreboard.add(.shadowsLeftOut)
        }
        let shadowAsker = comparisons.begin(asker, dataBytes: connections[slot].phase.askedBytes)
        switch shadow.ask(shadowAsker, .proxy, now: now) {
        case .accepted(let token):
            scoreboard.add(.shadowQuestions)
            comparisons.asked(shadowAsker, token)
        case .refused: comparisons.failed(shadowAsker)
        }
    }

    /// The main router's word on a question.
    func decided(_ asker: Asker, _ outcome: @autoclosure () -> Outcome) {
        guard comparisons.count > 0, let comparison = comparisons.decided(asker, outcome()) else { return }
        tell(comparison)
    }

    /// A question that the main router will not decide.
    func undecided(_ asker: Asker) {
        guard comparisons.count > 0, let (shadowAsker, token) = comparisons.undecided(asker) else { return }
        withdrawn[shadowAsker] = connectionID(Token(bits: asker.rawValue))
        shadow.withdraw(token, now: now)
    }

    /// The shadow's word.
    func shadowed(_ question: AnsweredQuestion, _ outcome: Outcome) {
        if let comparison = comparisons.shadowed(question.asker, outcome) { tell(comparison) }
    }

    func shadowFailed(_ asker: Asker) {
        scoreboard.add(.shadowFailures)
        comparisons.failed(asker)
    }

    private func forgetShadows() {
        for (shadowAsker, asker, token) in comparisons.clear() {
            withdrawn[shadowAsker] = connectionID(Token(bits: asker.rawValue))
            scoreboard.add(.shadowFailures)
            shadow.withdraw(token, now: now)
        }
    }

    private func tell(_ comparison: ShadowComparisons.Comparison) {
        guard !comparison.isSame else { return }
        scoreboard.add(.shadowDifferences)
        guard let leftOut = shadowPace.permit(at: now) else { return }
        let more = leftOut > 0 ? " (and \(leftOut) more differences)" : ""
        let token = Token(bits: comparison.asker.rawValue)
        let name =
            connections.holds(token.slot, generation: token.generation)
            ? "connection \(id(connections[token.slot].facts))" : "a connection that has ended"
        let (decided, shadowed) = (comparison.decided.words, comparison.shadowed.words)
        let details = decided == shadowed ? " with other details" : ""
        routerLog.info("\(name): the router says \(decided), the shadow \(shadowed)\(details)\(more)")
    }
}

/// Which share of the clients an address belongs to.
enum CanaryShare {
    /// 0 to 9999, evenly spread and the same for ever: a hash (FNV-1a) of the address without its port. Nil for a client
    /// without an address.
    static func of(_ address: SocketAddress) -> Int? {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        func add(_ value: UInt64, _ bytes: Int) {
            for index in 0..<bytes {
                hash = (hash ^ (value &>> UInt64(8 * index) & 0xff)) &* 0x100_0000_01b3
            }
        }
        switch address {
        case .ipv4(let host, _): add(UInt64(host.bits), 4)
        case .ipv6(let host, _):
            if let mapped = host.mappedIPv4 {
                add(UInt64(mapped.bits), 4)
            } else {
                add(host.high, 8)
                add(host.low, 8)
            }
        case .unix, .unnamed: return nil
        }
        // The low bits of FNV are weak for neighbours: mix them once more.
        hash = (hash ^ (hash &>> 32)) &* 0x9e37_79b9_7f4a_7c15
        return Int((hash &>> 33) % 10_000)
    }
}
