import Config
import Control
import Testing

@Suite struct WaitingOrdersTests {
    private func add(_ orders: inout WaitingOrders, _ line: String, fits: Bool = true) {
        let isAdded = orders.add(line)
        #expect(isAdded == fits, "\(line)")
    }

    @Test("orders wait in order for whoever reads again")
    func order() {
        var orders = WaitingOrders()
        for number in 0..<10 { add(&orders, "\(number)") }
        var sent: [String] = []
        var room = 4
        let take = { (line: String) in
            guard room > 0 else { return false }
            room -= 1
            sent.append(line)
            return true
        }
        orders.send(take)
        #expect(sent == (0..<4).map { "\($0)" } && orders.count == 6)
        orders.send(take)
        #expect(orders.count == 6)
        room = 100
        orders.send(take)
        #expect(sent == (0..<10).map { "\($0)" } && orders.isEmpty)
    }

    @Test("too many orders come to one, after which nothing stale is left")
    func tooMany() {
        var orders = WaitingOrders()
        for number in 0..<Limits.ordersWaitingMax { add(&orders, "\(number)") }
        add(&orders, "one more", fits: false)
        add(&orders, "and another")
        var sent: [String] = []
        orders.send {
            sent.append($0)
            return true
        }
        #expect(sent == [WaitingOrders.invalidateAll, "and another"])
    }
}
