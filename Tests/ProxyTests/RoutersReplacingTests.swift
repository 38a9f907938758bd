// How routers are started, given up, replaced and sent away: one test a rule.

import Testing

@testable import Proxy

@Suite("Routers: replacing")
struct RoutersReplacingTests {
    @Test("a router that never comes up at the very first start is a failure to boot, and none is tried again")
    func bootFailed() {
        for (end, gone) in [(RouterEnd.exited(2), true), (.spawnFailed(2), true), (.badGreeting, false)] {
            let desk = Desk()
            desk.routers.start(now: desk.now)
            desk.ask(1)
            _ = desk.take()
            desk.routers.died(r(1), end, now: desk.now)
            let way: RouterAction = gone ? .release(r(1)) : .terminate(r(1))
            #expect(desk.take() == [way, .bootFailed(end), .fail(a(1), .noRouter)])
            desk.pass(60_000)
            #expect(desk.routers.counters.spawned == 1)
            #expect(desk.refusal(a(2), .proxy) == .noRouter)
        }
    }

    @Test("hello unanswered in 10 s is a failed start")
    func helloTimeout() {
        let desk = Desk()
        desk.routers.start(now: desk.now)
        desk.pass(9999)
        #expect(desk.take() == [spawn(1)])
        desk.pass(1)
        #expect(desk.take() == [.terminate(r(1)), .bootFailed(.noGreeting(10_000))])
        // A greeting that comes now is too late.
        desk.routers.greeted(r(1), RouterAbilities(), now: desk.now)
        #expect(desk.take() == [])
    }

    @Test("a new router that closes its socket is given a moment for its exit status, the better reason")
    func exitStatus() {
        let desk = Desk()
        desk.routers.start(now: desk.now)
        desk.routers.died(r(1), .closed, now: desk.now)
        desk.pass(100)
        #expect(desk.take() == [spawn(1)])
        desk.routers.died(r(1), .exited(1), now: desk.now)
        #expect(desk.take() == [.release(r(1)), .bootFailed(.exited(1))])

        let silent = Desk()
        silent.routers.start(now: silent.now)
        silent.routers.died(r(1), .closed, now: silent.now)
        silent.pass(250)
        #expect(silent.take() == [spawn(1), .terminate(r(1)), .bootFailed(.closed)])
    }

    @Test(
        "the open questions of a dead router are put to its replacement, after the others, with replay raised and fresh time"
    )
    func replay() {
        let desk = Desk.ready()
        for asker in 1...3 { desk.ask(UInt64(asker)) }
        _ = desk.take()
        desk.pass(4000)
        desk.settle(r(1), 3)
        desk.routers.died(r(1), .signalled(9), now: desk.now)
        desk.ask(4)
        #expect(desk.take() == [.release(r(1)), spawn(2)])
        #expect(desk.takeNotes().contains(.lost(r(1), .signalled(9), open: 2, replayed: 2)))
        desk.pass(4000)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        #expect(desk.take() == [send(4, 2, to: 2)])
        #expect(desk.settle(r(2), 2) == 4)
        #expect(desk.take() == [send(1, 3, to: 2, replay: 1), send(3, 4, to: 2, replay: 1)])
        desk.pass(4000)
        #expect(desk.settle(r(2), 3) == 1)
        #expect(desk.settle(r(2), 4) == 3)
        #expect(desk.routers.openCount == 0)
    }

    @Test("a withdrawn question is not put to the replacement")
    func abandonedIsNotReplayed() {
        let desk = Desk.ready()
        let token = desk.ask(1)
        _ = desk.take()
        desk.routers.withdraw(token, now: desk.now)
        desk.routers.died(r(1), .exited(0), now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        #expect(desk.take() == [.release(r(1)), spawn(2)])
        #expect(desk.routers.questions.used == 5)
    }

    @Test("an answer that came before the death counts, and one that could not be carried out is asked again")
    func answerBeforeDeath() throws {
        let desk = Desk.ready()
        desk.ask(1)
        desk.ask(2)
        _ = desk.take()
        let first = try #require(desk.held(r(1), 2))
        let second = try #require(desk.held(r(1), 3))
        desk.routers.died(r(1), .exited(0), now: desk.now)
        desk.routers.applied(first.token, now: desk.now)
        desk.routers.notApplied(second.token, now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        #expect(desk.take() == [.release(r(1)), spawn(2), send(2, 2, to: 2, replay: 1)])
        let again = try #require(desk.held(r(2), 2))
        desk.routers.notApplied(again.token, now: desk.now)
        #expect(desk.take() == [send(2, 3, to: 2, replay: 2)])
        #expect(desk.routers.openCount == 1)
    }

    @Test("a start that fails is one line of the log, with the pause before the next one")
    func failedStarts() {
        let desk = Desk.ready()
        desk.routers.died(r(1), .exited(1), now: desk.now)
        _ = (desk.take(), desk.takeNotes())
        for (router, pause): (UInt64, Int64) in [(2, 100), (3, 200), (4, 400)] {
            desk.routers.died(r(router), .exited(2), now: desk.now)
            #expect(desk.takeNotes() == [.failedToStart(r(router), .exited(2), next: pause)])
            desk.pass(pause)
            #expect(desk.take().contains(spawn(router + 1)))
            _ = desk.takeNotes()
        }
    }

    @Test("the first restart comes at once, the next ones after 100 ms doubled up to 5 s, until an answer has come")
    func backOff() {
        let desk = Desk.ready()
        var router: UInt64 = 1
        for delay: Int64 in [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            desk.routers.died(r(router), .exited(1), now: desk.now)
            router += 1
            let atOnce = desk.take()
            #expect(atOnce == (delay == 0 ? [.release(r(router - 1)), spawn(router)] : [.release(r(router - 1))]))
            #expect(desk.takeNotes().contains(.restartLater(milliseconds: delay)) == (delay > 0))
            if delay > 0 {
                desk.pass(delay - 1)
                #expect(desk.take() == [])
                desk.pass(1)
                #expect(desk.take() == [spawn(router)])
            }
            // Which is not enough.
            desk.routers.greeted(r(router), RouterAbilities(), now: desk.now)
        }
        desk.ask(1)
        _ = desk.take()
        desk.settle(r(router), 2)
        desk.routers.died(r(router), .exited(1), now: desk.now)
        #expect(desk.take() == [.release(r(router)), spawn(router + 1)])
    }

    @Test("a router whose framing breaks is replaced at once and made to leave")
    func framing() {
        let desk = Desk.ready()
        desk.ask(1)
        _ = desk.take()
        desk.routers.died(r(1), .brokenFraming, now: desk.now)
        #expect(desk.take() == [.terminate(r(1)), spawn(2)])
        #expect(desk.answer(r(1), 2) == nil)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        #expect(desk.take() == [send(1, 2, to: 2, replay: 1)])
        desk.settle(r(2), 2)
        // TERM is ignored: KILL follows, and its end releases it.
        desk.pass(5000)
        #expect(desk.take() == [.kill(r(1))])
        desk.routers.died(r(1), .closed, now: desk.now)
        #expect(desk.take() == [])
        desk.routers.died(r(1), .signalled(9), now: desk.now)
        #expect(desk.take() == [.release(r(1))])
    }

    @Test("a router that has written nothing since a question was put to it is wedged when its time is up")
    func wedged() {
        let desk = Desk.ready()
        desk.ask(1)
        _ = desk.take()
        desk.pass(2000)
        desk.ask(2)
        _ = desk.take()
        desk.pass(3000)
        #expect(desk.take() == [.kill(r(1)), spawn(2)])
        #expect(desk.takeNotes().contains(.lost(r(1), .wedged(5000), open: 2, replayed: 2)))
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        #expect(desk.take() == [send(1, 2, to: 2, replay: 1), send(2, 3, to: 2, replay: 1)])
    }

    @Test("a router that answered the first of many and is stuck at the next is wedged for all of them")
    func stuckInTheMiddle() {
        let desk = Desk.ready()
        for asker in UInt64(1)...4 { desk.ask(asker) }
        _ = desk.take()
        desk.pass(10)
        desk.settle(r(1), 2)
        desk.pass(4989)
        #expect(desk.take() == [])
        desk.pass(1)
        #expect(desk.take() == [.kill(r(1)), spawn(2)])
        #expect(desk.takeNotes().contains(.lost(r(1), .wedged(4990), open: 3, replayed: 3)))
    }

    @Test("one that has hung alone since the router wrote last is told of by one that was asked after that")
    func stuckBehindAnAnswer() {
        let desk = Desk.ready()
        desk.ask(1)
        desk.ask(2)
        _ = desk.take()
        desk.settle(r(1), 3)
        desk.pass(3000)
        desk.ask(3)
        _ = desk.take()
        // The first one's time is up, but the router has said nothing for long and was asked meanwhile.
        desk.pass(4999)
        #expect(desk.take() == [])
        desk.pass(1)
        #expect(desk.take() == [.kill(r(1)), spawn(2)])
        #expect(desk.takeNotes().contains(.lost(r(1), .wedged(5000), open: 2, replayed: 2)))
    }

    @Test("a router that answers others is not stuck: a question past its time is lost alone")
    func lostAlone() {
        let desk = Desk.ready()
        desk.ask(1)
        _ = desk.take()
        for id in UInt64(3)...11 {
            desk.pass(490)
            desk.ask(id)
            _ = desk.take()
            desk.settle(r(1), id)
        }
        desk.pass(490)
        desk.ask(99)
        _ = desk.take()
        desk.pass(99)
        #expect(desk.take() == [])
        desk.pass(1)
        // 590 ms of silence: the one that was asked in it will tell.
        #expect(desk.take() == [])
        desk.settle(r(1), 12)
        desk.pass(5000)
        #expect(desk.take() == [.fail(a(1), .deadline)])
    }

    @Test("a question that waited long in the queue does not make a busy router look wedged")
    func notWedgedByWaiting() {
        let desk = Desk.ready(RouterAbilities(maxInFlight: 1))
        for asker in 1...3 { desk.ask(UInt64(asker)) }
        for id in UInt64(2)...4 {
            #expect(desk.take() == [send(id - 1, id, to: 1)])
            desk.pass(4500)
            desk.settle(r(1), id)
        }
        #expect(desk.take() == [])
    }

    @Test("a withdrawn question that a router without cancel never answers shows that it is wedged, too")
    func wedgedUnseen() {
        let desk = Desk.ready()
        let token = desk.ask(1)
        _ = desk.take()
        desk.routers.withdraw(token, now: desk.now)
        desk.pass(5000)
        #expect(desk.take() == [.kill(r(1)), spawn(2)])
    }

    @Test("a router that reads nothing and writes nothing for the router's time is wedged")
    func wedgedReader() {
        let desk = Desk.ready(RouterAbilities(wantsCancel: true))
        let token = desk.ask(1)
        _ = desk.take()
        desk.routers.blocked(r(1), true, now: desk.now)
        desk.routers.withdraw(token, now: desk.now)
        desk.pass(4000)
        desk.routers.heard(r(1), now: desk.now)
        desk.pass(1000)
        desk.routers.blocked(r(1), true, now: desk.now)
        #expect(desk.take() == [.cancel(r(1), id: 2, a(1))])
        desk.pass(5000)
        #expect(desk.take() == [.kill(r(1)), spawn(2)])
    }

    @Test("one that outlives KILL is given up, so that nothing grows")
    func survivor() {
        let desk = Desk.ready()
        desk.ask(1)
        _ = desk.take()
        desk.pass(5000)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        _ = desk.take()
        desk.pass(4000)
        desk.settle(r(2), 2)
        #expect(desk.take() == [])
        desk.pass(1000)
        #expect(desk.take() == [.release(r(1))])
        #expect(desk.takeNotes().contains(.survivedKill(r(1))))
    }
}

@Suite("Routers: behind sockets")
struct RoutersOutsideTests {
    private func desk() -> Desk {
        Desk {
            $0.kind = .unix
            $0.mayBeAbsent = true
        }
    }

    private func connect(_ router: UInt64, generation: Int = 1) -> RouterAction {
        .spawn(r(router), .unix, generation: generation)
    }

    @Test("a router that is not there is tried again, for ever, and the worker is ready all the same")
    func absent() {
        let desk = desk()
        desk.routers.start(now: desk.now)
        #expect(desk.take() == [connect(1), .ready])
        for (router, delay) in zip(UInt64(1)..., [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000] as [Int64]) {
            desk.routers.died(r(router), .unreachable(2), now: desk.now)
            desk.pass(delay)
            #expect(desk.take() == [.release(r(router)), connect(router + 1)])
        }
        // The log has the first try and the second, then fewer and fewer.
        #expect(desk.takeNotes().count == 4)
        desk.ask(1)
        desk.routers.greeted(r(10), RouterAbilities(), now: desk.now)
        #expect(desk.take() == [send(1, 2, to: 10)])
    }

    @Test("the end of its connection is the end of it: there is nobody to send a signal to")
    func closed() {
        let desk = desk()
        desk.routers.start(now: desk.now)
        desk.routers.greeted(r(1), RouterAbilities(wantsShutdown: true), now: desk.now)
        desk.ask(1)
        #expect(desk.take() == [connect(1), .ready, send(1, 2, to: 1)])
        desk.routers.died(r(1), .closed, now: desk.now)
        #expect(desk.take() == [.release(r(1)), connect(2)])
        desk.routers.greeted(r(2), RouterAbilities(wantsShutdown: true), now: desk.now)
        #expect(desk.take() == [send(1, 2, to: 2, replay: 1)])
        desk.pass(5000)
        #expect(desk.take() == [.release(r(2))])
        desk.pass(100)
        #expect(desk.take() == [connect(3)])
    }

    @Test("one that is told to go has its time, then the connection is closed")
    func leaves() {
        let desk = desk()
        desk.routers.start(now: desk.now)
        desk.routers.greeted(r(1), RouterAbilities(wantsShutdown: true), now: desk.now)
        desk.routers.reload(now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(wantsShutdown: true), now: desk.now)
        desk.pass(1000)
        #expect(
            desk.take() == [
                connect(1), .ready, connect(2, generation: 2), .reloaded(generation: 2), .shutdown(r(1), told: true),
            ])
        desk.pass(5000)
        #expect(desk.take() == [.release(r(1))])
        desk.routers.drain(now: desk.now)
        #expect(desk.take() == [.shutdown(r(2), told: true)])
        desk.routers.died(r(2), .closed, now: desk.now)
        #expect(desk.take() == [.release(r(2)), .drained])
    }
}

@Suite("Routers: words")
struct RoutersWordsTests {
    @Test("what ended a router is said in words that help")
    func ends() {
        #expect("it \(RouterEnd.signalled(9))" == "it was ended by signal 9 (KILL)")
        #expect("it \(RouterEnd.spawnFailed(2))" == "it could not be started: No such file or directory")
        #expect("\(RouterEnd.noGreeting(10_000))".contains("flush what it prints"))
        #expect(
            "\(RouterNote.lost(r(3), .exited(1), open: 1, replayed: 1))"
                == "router 3 exited with status 1; 1 question was open, to be put to the next router")
        #expect(
            "\(RouterNote.lost(r(3), .closed, open: 3, replayed: 2))"
                == "router 3 closed its socket; 3 questions were open, 2 to be put to the next router")
        #expect(
            RouterNote.lost(r(3), .closed, open: 0, replayed: 0).description.hasSuffix(
                "its socket; no question was open"))
    }
}

@Suite("Routers: reload and drain")
struct RoutersReloadTests {
    @Test("a reload starts the new router before the old one goes, which finishes its open answers first")
    func reload() throws {
        let desk = Desk.ready(RouterAbilities(wantsShutdown: true))
        desk.ask(1)
        desk.ask(2)
        _ = desk.take()
        desk.routers.reload(now: desk.now)
        desk.ask(3)
        #expect(desk.take() == [spawn(2, generation: 2), send(3, 4, to: 1)])
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        desk.ask(4)
        #expect(desk.take() == [send(4, 2, to: 2)])
        desk.settle(r(1), 2)
        desk.settle(r(1), 4)
        let last = try #require(desk.held(r(1), 3))
        #expect(desk.take() == [])
        #expect(desk.settle(r(2), 2) == 4)
        #expect(desk.take() == [.reloaded(generation: 2)])
        desk.routers.applied(last.token, now: desk.now)
        #expect(desk.take() == [.shutdown(r(1), told: true)])
        desk.routers.died(r(1), .exited(0), now: desk.now)
        #expect(desk.take() == [.release(r(1))])
        #expect(desk.routers.counters.lost == 0)
    }

    @Test("a new router that fails to come up leaves the old one, and says why")
    func reloadFailed() {
        let desk = Desk.ready()
        desk.routers.reload(now: desk.now)
        desk.routers.died(r(2), .exited(1), now: desk.now)
        desk.ask(1)
        #expect(desk.take() == [spawn(2, generation: 2), .release(r(2)), .reloadFailed(.exited(1)), send(1, 2, to: 1)])
        desk.pass(4000)
        #expect(desk.settle(r(1), 2) == 1)
        #expect(desk.take() == [])
        desk.routers.reload(now: desk.now)
        desk.routers.greeted(r(3), RouterAbilities(), now: desk.now)
        #expect(desk.take() == [spawn(3, generation: 3)])
        desk.pass(1000)
        #expect(desk.take() == [.reloaded(generation: 3), .shutdown(r(1), told: false)])
    }

    @Test("a new router that dies before it has proved itself gives its place back to the old one, with its questions")
    func undone() {
        let desk = Desk.ready()
        desk.ask(1)
        _ = desk.take()
        desk.routers.reload(now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        desk.ask(2)
        #expect(desk.take() == [spawn(2, generation: 2), send(2, 2, to: 2)])
        desk.pass(900)
        desk.routers.died(r(2), .exited(1), now: desk.now)
        desk.ask(3)
        #expect(desk.take() == [.reloadFailed(.exited(1)), .release(r(2)), send(3, 3, to: 1)])
        #expect(desk.takeNotes().last == .undone(r(2), .exited(1), old: r(1), open: 1, replayed: 1))
        desk.settle(r(1), 3)
        desk.settle(r(1), 2)
        #expect(desk.take() == [send(2, 4, to: 1, replay: 1)])
        desk.settle(r(1), 4)
        desk.pass(5000)
        #expect(desk.take() == [])
        #expect(desk.routers.counters.spawned == 2)
    }

    @Test("a new router that answers nothing has no second to its name until it does")
    func silentReload() {
        let desk = Desk.ready()
        desk.routers.reload(now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        desk.ask(1)
        _ = desk.take()
        desk.pass(4999)
        #expect(desk.take() == [])
        desk.pass(1)
        #expect(desk.take() == [.reloadFailed(.wedged(5000)), .kill(r(2)), send(1, 2, to: 1, replay: 1)])
    }

    @Test("an old router that dies while the new one proves itself is not waited for")
    func standbyDies() {
        let desk = Desk.ready()
        desk.ask(1)
        _ = desk.take()
        desk.routers.reload(now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        desk.routers.died(r(1), .exited(1), now: desk.now)
        #expect(desk.take() == [spawn(2, generation: 2), .release(r(1)), send(1, 2, to: 2, replay: 1)])
        desk.routers.died(r(2), .exited(1), now: desk.now)
        #expect(
            desk.take() == [.reloadFailed(.exited(1)), .release(r(2)), spawn(3, generation: 2), .fail(a(1), .poison)])
    }

    @Test("several routers are reloaded one after the other, and a failure leaves the rest")
    func severalReload() {
        let desk = Desk { $0.routers = 2 }
        desk.routers.start(now: desk.now)
        desk.routers.greeted(r(1), RouterAbilities(), now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        #expect(desk.take() == [spawn(1), spawn(2), .ready])
        desk.routers.reload(now: desk.now)
        desk.routers.greeted(r(3), RouterAbilities(), now: desk.now)
        desk.pass(1000)
        #expect(desk.take() == [spawn(3, generation: 2), .shutdown(r(1), told: false), spawn(4, generation: 2)])
        desk.routers.greeted(r(4), RouterAbilities(), now: desk.now)
        desk.pass(1000)
        #expect(desk.take() == [.reloaded(generation: 2), .shutdown(r(2), told: false)])
        desk.routers.reload(now: desk.now)
        desk.routers.died(r(5), .exited(1), now: desk.now)
        #expect(desk.take() == [spawn(5, generation: 3), .release(r(5)), .reloadFailed(.exited(1))])
    }

    @Test("generations are the arbiter's: a late worker begins with a later one, and a reload may skip some")
    func generations() {
        let desk = Desk(generation: 4)
        desk.routers.start(now: desk.now)
        #expect(desk.take() == [spawn(1, generation: 4)])
        desk.routers.greeted(r(1), RouterAbilities(), now: desk.now)
        _ = desk.take()
        desk.routers.reload(generation: 7, now: desk.now)
        // One more while the first is under way.
        desk.routers.reload(generation: 9, now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        desk.pass(1000)
        #expect(
            desk.take() == [
                spawn(2, generation: 7), .reloaded(generation: 7), .shutdown(r(1), told: false),
                spawn(3, generation: 9),
            ])
    }

    @Test("one that does not leave is sent TERM, then KILL, then given up")
    func stubborn() {
        let desk = Desk.ready()
        desk.routers.reload(now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        desk.pass(1000)
        _ = desk.take()
        for action: RouterAction in [.terminate(r(1)), .kill(r(1)), .release(r(1))] {
            desk.pass(4999)
            #expect(desk.take() == [])
            desk.pass(1)
            #expect(desk.take() == [action])
        }
    }

    @Test("the open questions of a retired router that dies go to the one that decides")
    func retiredDies() {
        let desk = Desk.ready()
        desk.ask(1)
        _ = desk.take()
        desk.routers.reload(now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        _ = desk.take()
        desk.routers.died(r(1), .signalled(11), now: desk.now)
        #expect(desk.take() == [.release(r(1)), send(1, 2, to: 2, replay: 1)])
        #expect(desk.routers.seats[0].failures == 0)
    }

    @Test("a question nobody wants any more does not keep a retired router")
    func retiredWithAbandoned() {
        let desk = Desk.ready()
        let token = desk.ask(1)
        _ = desk.take()
        desk.routers.reload(now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        desk.pass(1000)
        #expect(desk.take().last == .reloaded(generation: 2))
        desk.routers.withdraw(token, now: desk.now)
        #expect(desk.take() == [.shutdown(r(1), told: false)])
        #expect(desk.answer(r(1), 2) == nil)
        #expect(desk.routers.counters.lateAnswers == 1)
    }

    @Test("the new router of a reload replaces an old one that dies meanwhile; none is started beside it")
    func deathDuringReload() {
        let desk = Desk.ready()
        desk.ask(1)
        _ = desk.take()
        desk.routers.reload(now: desk.now)
        desk.routers.died(r(1), .exited(1), now: desk.now)
        #expect(desk.take() == [spawn(2, generation: 2), .release(r(1))])
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        #expect(desk.take() == [send(1, 2, to: 2, replay: 1)])
        desk.settle(r(2), 2)
        #expect(desk.take() == [.reloaded(generation: 2)])
    }

    @Test("a reload does not wait for the back-off")
    func reloadInBackOff() {
        let desk = Desk.ready()
        desk.routers.died(r(1), .exited(1), now: desk.now)
        desk.routers.died(r(2), .exited(1), now: desk.now)
        _ = desk.take()
        desk.routers.reload(now: desk.now)
        #expect(desk.take() == [spawn(3, generation: 2)])
        desk.routers.died(r(3), .exited(1), now: desk.now)
        #expect(desk.take() == [.release(r(3)), .reloadFailed(.exited(1))])
        desk.pass(200)
        #expect(desk.take() == [spawn(4, generation: 2)])
    }

    @Test("reloads in a burst are answered by the one under way and one more")
    func burst() {
        let desk = Desk.ready()
        for _ in 1...20 { desk.routers.reload(now: desk.now) }
        #expect(desk.take() == [spawn(2, generation: 2)])
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        desk.pass(1000)
        #expect(
            desk.take() == [.reloaded(generation: 2), .shutdown(r(1), told: false), spawn(3, generation: 3)])
        desk.routers.greeted(r(3), RouterAbilities(), now: desk.now)
        desk.pass(1000)
        #expect(desk.take() == [.reloaded(generation: 3), .shutdown(r(2), told: false)])
    }

    @Test("with every place taken by routers that are leaving, a reload waits for one of them")
    func noPlace() {
        let desk = Desk.ready { $0.livesMax = 3 }
        for router in UInt64(2)...3 {
            desk.routers.reload(now: desk.now)
            desk.routers.greeted(r(router), RouterAbilities(), now: desk.now)
            desk.pass(1000)
        }
        _ = desk.take()
        desk.routers.reload(now: desk.now)
        #expect(desk.take() == [])
        desk.routers.died(r(1), .exited(0), now: desk.now)
        #expect(desk.take() == [.release(r(1)), spawn(4, generation: 4)])
    }

    @Test("with every place taken a replacement hurries those that are leaving")
    func hurried() {
        let desk = Desk.ready { $0.livesMax = 2 }
        desk.routers.reload(now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        desk.pass(1000)
        _ = desk.take()
        desk.routers.died(r(2), .closed, now: desk.now)
        #expect(desk.take() == [.terminate(r(2)), .kill(r(2)), .kill(r(1))])
        desk.routers.died(r(2), .signalled(9), now: desk.now)
        #expect(desk.take() == [.release(r(2)), spawn(3, generation: 2)])
    }

    @Test("a drain waits for the last open question, then the routers leave, then it is over")
    func drain() {
        let desk = Desk.ready(RouterAbilities(wantsShutdown: true))
        desk.ask(1)
        _ = desk.take()
        desk.routers.drain(now: desk.now)
        desk.ask(2)
        #expect(desk.take() == [send(2, 3, to: 1)])
        desk.settle(r(1), 2)
        desk.settle(r(1), 3)
        #expect(desk.take() == [.shutdown(r(1), told: true)])
        #expect(desk.refusal(a(3), .proxy) == .noRouter)
        desk.routers.died(r(1), .exited(0), now: desk.now)
        #expect(desk.take() == [.release(r(1)), .drained])
        #expect(desk.routers.nextDeadline == nil)
    }

    @Test("while draining a dead router is replaced for open questions only")
    func drainAndDie() {
        let desk = Desk.ready()
        let token = desk.ask(1)
        _ = desk.take()
        desk.routers.drain(now: desk.now)
        desk.routers.died(r(1), .exited(1), now: desk.now)
        #expect(desk.take() == [.release(r(1)), spawn(2)])
        desk.routers.withdraw(token, now: desk.now)
        #expect(desk.take() == [.terminate(r(2))])
        desk.routers.died(r(2), .signalled(15), now: desk.now)
        #expect(desk.take() == [.release(r(2)), .drained])

        let idle = Desk.ready()
        idle.routers.drain(now: idle.now)
        idle.routers.died(r(1), .exited(1), now: idle.now)
        #expect(idle.take() == [.shutdown(r(1), told: false), .release(r(1)), .drained])
    }
}
