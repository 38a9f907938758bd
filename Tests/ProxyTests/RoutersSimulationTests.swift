// Thousands of random histories of a worker, its clients and its routers. A simple model beside `Routers` knows what a
// client, a router and a clock may expect, and every action and every number is held against it.

import Testing

@testable import Proxy

/// One history: the world around `Routers`, and what must be true of it after every step.
final class History {
    /// A question as its client sees it.
    struct Client {
        let token: QuestionToken
        let kind: QuestionKind
        var deaths: UInt8 = 0
        /// Deaths at which nothing else was open at its router.
        var alone = 0
        /// The same, if those whose time was up in the same instant count as gone.
        var nearlyAlone = 0
        var place: Place
        /// When it was put to the router it was lost with.
        var askedBefore: Int64?
    }

    enum Place: Equatable {
        case waiting(since: Int64)
        case with(RouterID, id: UInt64, since: Int64)
        case answered(by: RouterID)
    }

    /// A router process as the world sees it.
    struct Process {
        enum State { case starting, greeted, condemned, gone }
        var state = State.starting
        let spawnedAt: Int64
        var abilities = RouterAbilities()
        var isBlocked = false
        var lastID: UInt64 = 1
        /// What it believes it has to answer, oldest first; the asker, or nil where the client has left.
        var open: [(id: UInt64, asker: UInt64?, since: Int64, deadline: Int64, event: Int)] = []
        /// Which event of the history it wrote at last, and when.
        var lastWrote = (event: 0, at: Int64(0))
        var blockedSince: Int64 = 0
        var wasToldToGo = false
        var killedAt: Int64?
    }

    let seed: UInt64
    var dice: Dice
    /// Routers answer seldom, and more time passes.
    let isSlow: Bool
    let limits: RouterLimits
    var routers: Routers
    var now: Int64 = 0
    var clients: [UInt64: Client] = [:]
    /// The keys of `clients`, in order, so that a seed always means the same history.
    var order: [UInt64] = []
    var held: [UInt64] = []
    var processes: [UInt64: Process] = [:]
    /// Of a single router: who is to be asked, and who would be if that one died now.
    var holder: RouterID? {
        didSet { nobodySince = holder == nil ? nobodySince ?? now : nil }
    }
    var nobodySince: Int64? = 0
    var standby: RouterID?
    var nextAsker: UInt64 = 1
    var lastSpawned: UInt64 = 0
    var lastGeneration = 1
    /// No new generation was started since the last reload was asked for.
    var reloadIsDue = false
    var reloads = 0
    var reloadsAnswered = 0
    var readies = 0
    var isOver = false
    var failures = 0
    var complaints: [String] = []
    var stepNumber = 0
    /// What is sent and what is written, counted: many things happen in one millisecond.
    var events = 0

    init(seed: UInt64) {
        self.seed = seed
        var dice = Dice(seed: seed)
        var limits = RouterLimits()
        limits.questionsMax = dice.number(1...24)
        limits.waitingMax = dice.number(1...12)
        limits.routers = dice.chance(2, 3) ? 1 : dice.number(2...3)
        limits.livesMax = limits.routers + dice.number(1...4)
        limits.trialMax = dice.number(1...8)
        limits.othersPerTurn = dice.number(1...8)
        limits.waitingTimeoutMilliseconds = Int64(dice.number(1000...20_000))
        limits.progressMaxMilliseconds = Int64(dice.number(1000...20_000))
        limits.absenceMilliseconds =
            limits.routers == 1 && dice.chance(1, 2) ? Int64(dice.number(100...10_000)) : nil
        self.limits = limits
        isSlow = dice.chance(1, 2)
        self.dice = dice
        routers = Routers(limits: limits)
    }

    /// Nobody has been there to decide for longer than questions are to wait.
    var isDeserted: Bool {
        if let nobodySince, let absence = limits.absenceMilliseconds { now - nobodySince >= absence } else { false }
    }

    func must(_ isTrue: Bool, _ text: @autoclosure () -> String) {
        if !isTrue, complaints.count < 5 { complaints.append("seed \(seed), step \(stepNumber): \(text())") }
    }

    // MARK: What must be true

    func check() {
        drainActions()
        must(routers.openCount == clients.count, "\(routers.openCount) open, the clients say \(clients.count)")
        let waiting = clients.values.count { if case .waiting = $0.place { true } else { false } }
        must(routers.waitingCount == waiting, "\(routers.waitingCount) wait, the clients say \(waiting)")
        if waiting >= limits.waitingMax { must(routers.isFull, "the queue is full and nobody is told") }
        if waiting * 2 < limits.waitingMax { must(!routers.isFull, "the queue is called full at \(waiting)") }
        must(routers.lives.count <= limits.livesMax, "\(routers.lives.count) routers at once")
        must(routers.actions.isEmpty, "actions were left")
        let abandoned = routers.lives.reduce(0) { $0 + $1.abandoned }
        let used = 3 + 2 * routers.lives.count + clients.count + abandoned
        must(routers.questions.used == used, "\(routers.questions.used) slots in use for \(used)")
        for (number, process) in processes {
            must(process.open.count <= max(1, process.abilities.maxInFlight), "too many questions at \(number)")
        }
        checkTurns()
        must(clients.values.allSatisfy { $0.alone < 3 }, "a poisonous question is still asked")
        if let deadline = routers.nextDeadline { must(deadline > now, "the next deadline \(deadline) is past \(now)") }
    }

    /// Nothing waits without a reason.
    func checkTurns() {
        let others = routers.questions.first(of: routers.waiting) != nil
        let suspects = routers.questions.first(of: routers.suspects) != nil
        for life in routers.lives where life.hasRoom {
            if routers.turn.router != life.id {
                must(!others, "questions wait though router \(life.id) has room")
            } else if case .clearing = routers.turn {
                must(life.inFlight > 0, "router \(life.id) is kept free for nobody")
            }
            guard suspects, life.inFlight == 0 else { continue }
            switch routers.turn {
            case .others(let until): must((until ?? 0) > now, "suspects wait though router \(life.id) is idle")
            case .clearing(let router, _), .trying(let router, _, _, _):
                must(router != life.id, "suspects wait though router \(life.id) is theirs")
            }
        }
    }

    func drainActions() {
        while let action = routers.nextAction(now: now) { perform(action) }
    }

    // MARK: What has to be done

    func perform(_ action: RouterAction) {
        if isOver, case .note = action {} else { must(!isOver, "\(action) after the end") }
        switch action {
        case .spawn(let router, _, let generation):
            if generation != lastGeneration { reloadIsDue = false }
            lastGeneration = generation
            must(router.number > lastSpawned, "a router's id is used again")
            lastSpawned = router.number
            processes[router.number] = Process(spawnedAt: now)
        case .send(let question): send(question)
        case .cancel(let router, let id, _):
            guard let process = processes[router.number] else { return must(false, "cancel for a released router") }
            must(process.abilities.wantsCancel, "cancel to a router that does not want it")
            must(id <= process.lastID, "cancel of what was never sent")
            processes[router.number]?.open.removeAll { $0.id == id }
        case .shutdown(let router, _):
            // Those whose time is up are told so after this.
            let isNeeded = processes[router.number]?.open.contains {
                $0.asker != nil && now - $0.since < limits.routerTimeoutMilliseconds
            }
            must(!clients.values.contains { $0.place == .answered(by: router) }, "an answer is being carried out")
            must(isNeeded == false, "a router with open questions is sent away")
            processes[router.number]?.wasToldToGo = true
            processes[router.number]?.open = []
        case .terminate(let router): condemn(router)
        case .kill(let router):
            if let process = processes[router.number], process.state == .greeted, !process.wasToldToGo {
                checkWedge(router, process)
                lost(router)
            }
            condemn(router)
            processes[router.number]?.killedAt = now
        case .release(let router):
            guard let process = processes.removeValue(forKey: router.number) else {
                return must(false, "released twice")
            }
            let survived = process.killedAt.map { now - $0 >= limits.killTimeoutMilliseconds } ?? false
            must(process.state == .gone || survived, "released while it lives")
        case .fail(let asker, let reason): failed(asker.rawValue, reason)
        case .ready:
            readies += 1
            must(readies == 1, "ready twice")
        case .bootFailed:
            must(readies == 0, "boot failed after ready")
        case .reloaded, .reloadFailed:
            if case .reloaded = action { standby = nil }
            reloadsAnswered += 1
            must(reloadsAnswered <= reloads, "more answers than reloads")
        case .drained:
            must(processes.isEmpty && clients.isEmpty, "drained too early")
            isOver = true
        case .note(.undone(let router, _, let old, _, _)):
            if limits.routers == 1 { must(old == standby && holder ?? router == router, "the wrong one comes back") }
            (holder, standby) = (old, nil)
        case .note: break
        }
    }

    func send(_ question: QuestionToSend) {
        let (router, asker) = (question.router, question.asker.rawValue)
        guard var process = processes[router.number], let client = clients[asker] else {
            return must(false, "\(question) to nobody or for nobody")
        }
        must(process.state == .greeted && !process.wasToldToGo, "asked a router that is not there")
        let phase = routers.lives.first { $0.id == router }?.phase
        must(limits.routers > 1 ? phase == .deciding : router == holder, "asked a router that does not decide")
        must(!process.isBlocked, "asked a router that does not read")
        must(question.id > process.lastID, "ids do not rise")
        if case .waiting = client.place {} else { must(false, "asker \(asker) is asked about twice") }
        must(question.replay == client.deaths, "replay \(question.replay)")
        must(question.kind == client.kind, "another kind")
        must(question.kind == .proxy || process.abilities.answersProxyError, "proxy_error is not implemented")
        process.lastID = question.id
        events += 1
        process.open.append((question.id, asker, now, now + limits.routerTimeoutMilliseconds, events))
        processes[router.number] = process
        clients[asker]?.place = .with(router, id: question.id, since: now)
    }

    func failed(_ asker: UInt64, _ reason: QuestionFailure) {
        guard let client = clients[asker] else { return must(false, "\(asker) ends twice") }
        end(asker)
        if reason != .notImplemented { failures += 1 }
        switch (reason, client.place) {
        case (.deadline, .with(let router, let id, let since)):
            must(now - since >= limits.routerTimeoutMilliseconds, "deadline too early")
            // A router that cannot be told goes on, but its place is free.
            processes[router.number]?.open.removeAll { $0.id == id }
        case (.deadline, .waiting(let since)):
            // Its time was up in the same instant in which its router was found wedged for a later question.
            let askedAt = client.askedBefore ?? since
            must(since == now && now - askedAt >= limits.routerTimeoutMilliseconds, "deadline too early")
        case (.noRouter, .waiting(let since)), (.overloaded, .waiting(let since)):
            must(
                now - since >= limits.waitingTimeoutMilliseconds || readies == 0 || isDeserted,
                "gave up waiting too early")
            if limits.routers == 1, let holder, processes[holder.number]?.state == .greeted {
                must(reason == .overloaded, "there is a router")
            }
        case (.poison, .waiting): must(client.nearlyAlone >= 2, "convicted too early")
        case (.notImplemented, .waiting): must(client.kind == .proxyError, "not implemented")
        default: must(false, "\(reason) at \(client.place)")
        }
    }

    /// A router that was asked to do its work and is killed for not doing it: it must have deserved it.
    func checkWedge(_ router: RouterID, _ process: Process) {
        let timeout = limits.routerTimeoutMilliseconds
        let asked = process.open.contains { $0.event > process.lastWrote.event && now - $0.since >= timeout }
        let reads = process.isBlocked && now - max(process.blockedSince, process.lastWrote.at) >= timeout
        let patience = timeout / 4 * 3
        let silent =
            now - process.lastWrote.at >= patience && process.open.count { now - $0.since >= patience } > 1
        must(asked || reads || silent, "router \(router) was killed though it is not wedged")
    }

    func condemn(_ router: RouterID) {
        if processes[router.number]?.state == .greeted || processes[router.number]?.state == .starting {
            processes[router.number]?.state = .condemned
        }
        processes[router.number]?.open = []
        if holder == router { holder = nil }
    }

    /// The open questions of a router go back to the queue, or fail.
    func lost(_ router: RouterID) {
        let open = processes[router.number]?.open ?? []
        for entry in open {
            guard let asker = entry.asker else { continue }
            if open.count == 1 { clients[asker]?.alone += 1 }
            if open.count(where: { $0.deadline > now || $0.id == entry.id }) == 1 { clients[asker]?.nearlyAlone += 1 }
            clients[asker]?.deaths += 1
            clients[asker]?.place = .waiting(since: now)
            clients[asker]?.askedBefore = entry.since
        }
        processes[router.number]?.open = []
        if holder == router { holder = nil }
        if standby == router { standby = nil }
    }

    func end(_ asker: UInt64) {
        clients[asker] = nil
        order.removeAll { $0 == asker }
        held.removeAll { $0 == asker }
    }
}

// MARK: - What may happen

extension History {
    func step() {
        stepNumber += 1
        switch dice.number(0...99) {
        case 0..<25: for _ in 0..<dice.number(1...6) { ask() }
        case 25..<32: withdraw()
        case 32..<55: for _ in 0..<dice.number(1...4) where !isSlow || dice.chance(1, 8) { answer() }
        case 55..<59: strayAnswer()
        case 59..<63: applySomething()
        case 63..<67: progress()
        case 67..<69: write()
        case 69..<72: block()
        case 72..<76: die()
        case 76..<86: comeUp()
        case 86..<89: reload()
        case 89..<92: goAway()
        case 92..<98: tick(Int64(dice.number(1...(isSlow ? 3000 : 800))))
        case 98: if let deadline = routers.nextDeadline { tick(deadline - now) }
        default: tick(Int64(dice.number(1000...100_000)))
        }
        check()
    }

    func ask() {
        let kind: QuestionKind = dice.chance(1, 6) ? .proxyError : .proxy
        let asker = nextAsker
        nextAsker += 1
        switch routers.ask(Asker(rawValue: asker), kind, now: now) {
        case .accepted(let token):
            clients[asker] = Client(token: token, kind: kind, place: .waiting(since: now))
            order.append(asker)
        case .refused(.overloaded): must(clients.count >= limits.questionsMax, "refused with room")
        case .refused(.notImplemented): must(kind == .proxyError, "refused as not implemented")
        case .refused(.noRouter):
            must(routers.phase == .leaving || routers.phase == .ended || isDeserted, "refused while running")
        case .refused(let reason): must(false, "refused: \(reason)")
        }
        if dice.chance(1, 2) { drainActions() }
    }

    func pick<T>(_ list: [T]) -> T? { list.isEmpty ? nil : list[dice.number(0...(list.count - 1))] }

    func withdraw() {
        guard let asker = pick(order), let client = clients[asker] else { return }
        routers.withdraw(client.token, now: now)
        if case .with(let router, let id, _) = client.place, processes[router.number]?.abilities.wantsCancel == false {
            // It goes on working at it.
            if let index = processes[router.number]?.open.firstIndex(where: { $0.id == id }) {
                processes[router.number]?.open[index].asker = nil
            }
        }
        end(asker)
        // A token whose question is over does nothing, however often it is used.
        routers.withdraw(client.token, now: now)
        routers.applied(client.token, now: now)
    }

    var greeted: [UInt64] {
        processes.keys.filter { processes[$0]?.state == .greeted && processes[$0]?.wasToldToGo == false }.sorted()
    }

    func answer() {
        guard let number = pick(greeted.filter { processes[$0]?.open.isEmpty == false }),
            let count = processes[number]?.open.count
        else { return }
        let index = dice.chance(2, 3) ? 0 : dice.number(0...(count - 1))
        guard let entry = processes[number]?.open.remove(at: index) else { return }
        wrote(number)
        let answer = routers.answered(RouterID(number: number), id: entry.id, now: now)
        must(answer?.asker.rawValue == entry.asker, "the answer \(entry.id) went to the wrong one")
        guard let answer else { return }
        must(clients[answer.asker.rawValue]?.token == answer.token, "the token is another's")
        if dice.chance(3, 4) {
            routers.applied(answer.token, now: now)
            end(answer.asker.rawValue)
        } else {
            clients[answer.asker.rawValue]?.place = .answered(by: RouterID(number: number))
            held.append(answer.asker.rawValue)
        }
    }

    /// An answer to nothing that is open there.
    func strayAnswer() {
        let router = RouterID(number: UInt64(dice.number(0...Int(lastSpawned + 1))))
        let id = UInt64(dice.number(0...40))
        guard processes[router.number]?.open.contains(where: { $0.id == id }) != true else { return }
        let before = routers.counters.lateAnswers + routers.counters.unknownAnswers
        must(routers.answered(router, id: id, now: now) == nil, "a stray answer was taken")
        must(routers.counters.lateAnswers + routers.counters.unknownAnswers == before + 1, "it was not counted")
        wrote(router.number)
    }

    func applySomething() {
        guard let asker = pick(held), let client = clients[asker] else { return }
        held.removeAll { $0 == asker }
        if dice.chance(1, 3) {
            routers.notApplied(client.token, now: now)
            clients[asker]?.deaths += 1
            clients[asker]?.place = .waiting(since: now)
        } else {
            routers.applied(client.token, now: now)
            end(asker)
        }
    }

    func progress() {
        guard let number = pick(greeted), let open = processes[number]?.open, !open.isEmpty else { return }
        let index = dice.number(0...(open.count - 1))
        let entry = open[index]
        let milliseconds = pick([Int64.min, -1, 0, 100, 3000, 60_000, .max]) ?? 0
        routers.progressed(RouterID(number: number), id: entry.id, milliseconds: milliseconds, now: now)
        wrote(number)
        if entry.asker != nil {
            let wished = now + max(0, min(milliseconds, limits.progressMaxMilliseconds))
            let latest = entry.since + limits.progressMaxMilliseconds
            processes[number]?.open[index].deadline = max(entry.deadline, min(wished, latest))
        }
    }

    func wrote(_ number: UInt64) {
        events += 1
        processes[number]?.lastWrote = (events, now)
    }

    func write() {
        guard let number = pick(greeted) else { return }
        routers.heard(RouterID(number: number), now: now)
        wrote(number)
    }

    func block() {
        guard let number = pick(greeted), let isBlocked = processes[number]?.isBlocked else { return }
        processes[number]?.isBlocked = !isBlocked
        processes[number]?.blockedSince = now
        routers.blocked(RouterID(number: number), !isBlocked, now: now)
    }

    func die() {
        guard let number = pick(greeted) else { return }
        let router = RouterID(number: number)
        let end = pick([RouterEnd.exited(1), .signalled(9), .closed, .brokenFraming]) ?? .closed
        lost(router)
        processes[number]?.state = end.processIsGone ? .gone : .condemned
        routers.died(router, end, now: now)
    }

    func comeUp() {
        guard let number = pick(processes.keys.filter { processes[$0]?.state == .starting }.sorted()) else { return }
        let router = RouterID(number: number)
        // The very first start nearly always works, or there would be no history.
        if dice.chance(1, readies == 0 ? 50 : 4) {
            let end = pick([RouterEnd.exited(1), .badGreeting, .closed, .spawnFailed(2), .signalled(6)]) ?? .closed
            if end == .closed {
                routers.died(router, end, now: now)
                if dice.chance(1, 2) { return }
                processes[number]?.state = .gone
                return routers.died(router, .exited(2), now: now)
            }
            processes[number]?.state = end.processIsGone ? .gone : .condemned
            return routers.died(router, end, now: now)
        }
        let abilities = RouterAbilities(
            maxInFlight: dice.number(-1...6), answersProxyError: dice.chance(1, 2), wantsCancel: dice.chance(1, 2),
            wantsShutdown: dice.chance(1, 2))
        let wasClosed = routers.lives.contains { life in
            if life.id == router, case .starting(_, closed: true) = life.phase { true } else { false }
        }
        routers.greeted(router, abilities, now: now)
        guard !wasClosed else { return }
        processes[number]?.state = .greeted
        processes[number]?.abilities = abilities
        processes[number]?.abilities.maxInFlight = max(1, min(abilities.maxInFlight, limits.questionsMax))
        wrote(number)
        (holder, standby) = (router, holder)
    }

    func reload() {
        reloads += 1
        reloadIsDue = true
        routers.reload(now: now)
    }

    /// One that was told to go, or made to, does.
    func goAway() {
        let leaving = processes.keys.filter {
            guard let process = processes[$0] else { return false }
            return process.state == .condemned || (process.state == .greeted && process.wasToldToGo)
        }
        guard let number = pick(leaving.sorted()) else { return }
        if dice.chance(1, 4) { routers.died(RouterID(number: number), .closed, now: now) }
        processes[number]?.state = .gone
        routers.died(RouterID(number: number), .exited(0), now: now)
    }

    func tick(_ milliseconds: Int64) {
        now += milliseconds
        // In this order: what a router wrote has been read before its silence is judged.
        routers.advance(now: now)
        drainActions()
        // Those that a router without cancel kept too long are free again there.
        for (number, process) in processes where process.state == .greeted {
            processes[number]?.open = process.open.filter { $0.asker != nil || now < $0.deadline }
            // Twice the time at most, while the router may be stuck.
            let most = limits.routerTimeoutMilliseconds
            must(
                process.open.allSatisfy { $0.asker == nil || now < $0.deadline + most },
                "a question at \(number) is too old")
        }
        for client in clients.values {
            if case .waiting(let since) = client.place {
                must(
                    now - since < limits.waitingTimeoutMilliseconds && !isDeserted, "a question waits too long")
            }
        }
    }

    /// Everything works from here on: every question must be answered, and with a drain everything must end.
    func settleDown() {
        let before = failures
        var failuresAllowed = 0
        for _ in 0..<400 where !clients.isEmpty {
            stepNumber += 1
            for number in processes.keys.sorted() where processes[number]?.state == .starting { greet(number) }
            for number in greeted where processes[number]?.isBlocked == true {
                processes[number]?.isBlocked = false
                routers.blocked(RouterID(number: number), false, now: now)
            }
            check()
            for asker in held {
                if let token = clients[asker]?.token { routers.applied(token, now: now) }
                end(asker)
            }
            for number in greeted {
                for entry in processes[number]?.open ?? [] {
                    if let answer = routers.answered(RouterID(number: number), id: entry.id, now: now) {
                        routers.applied(answer.token, now: now)
                        end(answer.asker.rawValue)
                    }
                }
                processes[number]?.open = []
                wrote(number)
            }
            check()
            goAway()
            check()
            // Only where nothing else moves may time run on; then some may have waited too long.
            if !clients.isEmpty, greeted.allSatisfy({ processes[$0]?.open.isEmpty == true }),
                let deadline = routers.nextDeadline
            {
                failuresAllowed += clients.count
                tick(deadline - now)
            }
        }
        must(clients.isEmpty, "\(clients.count) questions have no end")
        must(failures - before <= failuresAllowed, "questions failed although every router answers")
    }

    func greet(_ number: UInt64) {
        let router = RouterID(number: number)
        let isClosed = routers.lives.contains { life in
            if life.id == router, case .starting(_, closed: true) = life.phase { true } else { false }
        }
        if isClosed {
            processes[number]?.state = .gone
            return routers.died(router, .exited(1), now: now)
        }
        let abilities = RouterAbilities(maxInFlight: 4, answersProxyError: true, wantsCancel: true)
        routers.greeted(router, abilities, now: now)
        processes[number]?.state = .greeted
        processes[number]?.abilities = abilities
        processes[number]?.abilities.maxInFlight = min(4, limits.questionsMax)
        (holder, standby) = (router, holder)
    }

    func finish() {
        settleDown()
        for _ in 0..<50 where reloadIsDue && readies > 0 {
            for number in processes.keys.sorted() where processes[number]?.state == .starting { greet(number) }
            check()
            goAway()
            check()
            if let deadline = routers.nextDeadline { tick(deadline - now) }
            check()
        }
        must(!reloadIsDue || readies == 0, "a reload was forgotten")
        routers.drain(now: now)
        check()
        for _ in 0..<100 where !isOver {
            stepNumber += 1
            goAway()
            check()
            if let deadline = routers.nextDeadline { tick(deadline - now) }
            check()
        }
        must(isOver || readies == 0, "the drain has no end")
        must(
            routers.lives.isEmpty && routers.nextDeadline == nil,
            "routers are left: \(routers.phase) \(routers.lives.map { ($0.id, $0.phase) })")
        must(routers.questions.used == 3, "\(routers.questions.used) slots are left")
        let counters = routers.counters
        let ends = counters.withdrawn + counters.failed
        must(
            counters.asked >= ends && counters.answered >= counters.asked - ends,
            "the counts do not add up: \(counters)")
    }
}

@Suite("Routers: simulation")
struct RoutersSimulationTests {
    @Test("no history of deaths, floods, wedges, reloads and jumps of the clock loses a question or breaks a bound")
    func histories() {
        var totals = RouterCounters()
        for seed in UInt64(0)..<3000 {
            let history = History(seed: seed)
            history.routers.start(now: 0)
            history.check()
            for _ in 0..<150 where history.complaints.isEmpty { history.step() }
            if history.complaints.isEmpty { history.finish() }
            if !history.complaints.isEmpty {
                Issue.record("\(history.complaints.joined(separator: "\n"))")
                return
            }
            let counters = history.routers.counters
            totals.asked += counters.asked
            totals.answered += counters.answered
            totals.replayed += counters.replayed
            totals.failed += counters.failed
            totals.withdrawn += counters.withdrawn
            totals.lost += counters.lost
        }
        // The histories are about something.
        #expect(totals.answered > totals.asked / 5)
        for count in [totals.replayed, totals.failed, totals.withdrawn, totals.lost] { #expect(count > 5000) }
    }
}
